"""Tells aggregator how much plans let customers use, for as long as the process runs; any number of
replicas may.

A trigger notes each change of a subscription's phases in its transaction (limit_tells). What is
told is all of a subscription as it is now, by its customer's test clock if there is one, so
telling it again changes nothing; a killed process leaves what it had taken to whoever looks after
the lease.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

import grpc
import structlog
from pydantic import SecretStr
from usageflow.aggregator.v1 import quotas_pb2, quotas_pb2_grpc

from services.invoicer.domain import Subscription
from services.invoicer.repository import limit_tells, plans, subscriptions
from services.invoicer.repository.limit_tells import LimitTell
from services.invoicer.usage_limits import ToldLimits, limits_at
from services.kit.auth import MODE_NUMBERS
from services.kit.database import Database
from services.kit.errors import DomainError, UnavailableError, from_rpc_error
from services.kit.grpc_client import internal_metadata
from services.kit.money import format_decimal
from services.kit.waiting import happens

log = structlog.get_logger()

TELLS_MAX = 50
POLL_S = 1.0
TELL_TIMEOUT_S = 5.0
# Longer than a round of TELLS_MAX may take.
LEASE = timedelta(seconds=TELLS_MAX * TELL_TIMEOUT_S)
RETRY = timedelta(seconds=5)
# A metric that is limited, but nobody has used or defined.
UNKNOWN_RETRY = timedelta(seconds=30)


class LimitSink(Protocol):
    """Who keeps to the limits."""

    async def set(self, subscription: Subscription, told: ToldLimits, now: datetime) -> list[str]:
        """All of a subscription as of `now`, its customer's time; the metrics that can't be limited
        now. UnavailableError.
        """


class AggregatorLimits:
    """A LimitSink that is aggregator, over gRPC."""

    def __init__(self, channel: grpc.aio.Channel, token: SecretStr) -> None:
        self._stub = quotas_pb2_grpc.PlanLimitsInternalServiceStub(channel)
        self._token = token

    async def set(self, subscription: Subscription, told: ToldLimits, now: datetime) -> list[str]:
        """All of a subscription as of `now`; the metrics that can't be limited now."""
        request = quotas_pb2.SetSubscriptionLimitsRequest(
            organization_id=subscription.tenant.organization_id,
            mode=MODE_NUMBERS[subscription.tenant.mode],
            customer_id=subscription.customer_id,
            subscription_id=subscription.id,
            limits=[
                quotas_pb2.PlanLimit(
                    metric=metric,
                    limit=format_decimal(limit.units),
                    enforcement=quotas_pb2.QuotaEnforcement.Value(
                        f"QUOTA_ENFORCEMENT_{limit.enforcement}"
                    ),
                )
                for metric, limit in told.limits.items()
            ],
        )
        request.time.FromDatetime(now)
        for boundary in told.boundaries:
            request.boundaries.add().FromDatetime(boundary)
        try:
            response = await self._stub.SetSubscriptionLimits(
                request, timeout=TELL_TIMEOUT_S, metadata=internal_metadata(self._token)
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return list(response.unknown_metrics)


class LimitTeller:
    """The loop."""

    def __init__(self, database: Database, sink: LimitSink, now: Callable[[], datetime]) -> None:
        self._database = database
        self._sink = sink
        self._now = now
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """A subscription has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Tell what is due until cancelled."""
        while True:
            self._wake.clear()
            try:
                while await self.round() >= TELLS_MAX:
                    pass
            except UnavailableError as error:
                log.debug("limits_wait", error=error.message)
            await happens(self._wake, POLL_S)

    async def round(self) -> int:
        """Tell up to TELLS_MAX of each mode that are due; how many there were. UnavailableError."""
        now = self._now()
        async with self._database.transaction() as connection:
            due = await limit_tells.claim(connection, now, now + LEASE, TELLS_MAX)
        for tell in due:
            try:
                await self._tell(tell)
            except DomainError as error:
                log.warning("limits_not_told", error=error.message, id=tell.subscription_id)
                await self._postpone(tell, RETRY)
        return len(due)

    async def _tell(self, tell: LimitTell) -> None:
        async with self._database.transaction() as connection:
            found = await subscriptions.get_subscription(
                connection, tell.tenant, tell.subscription_id
            )
            assert found is not None, "subscriptions are never deleted"
            now = found.now(self._now())
            plan = None
            if found.phases:
                phase = found.phase_at(max(now, found.start_time))
                plan = await plans.get_plan(
                    connection, tell.tenant, phase.plan_id, phase.plan_version
                )
        told = limits_at(found, plan, now)
        unknown = await self._sink.set(found, told, now)
        if unknown and told.next_time is not None:
            await self._postpone(tell, UNKNOWN_RETRY)
            return
        async with self._database.transaction() as connection:
            await limit_tells.told(connection, tell, told.next_time)

    async def _postpone(self, tell: LimitTell, pause: timedelta) -> None:
        async with self._database.transaction() as connection:
            await limit_tells.postpone(connection, tell, self._now() + pause)
