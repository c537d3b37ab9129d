"""Telling accounts what test clocks show: it hands that out with the keys of test mode, so that
gateway and ingest know how early an event may be.
"""

from typing import Protocol

import grpc
from pydantic import SecretStr
from usageflow.accounts.v1 import accounts_pb2, accounts_pb2_grpc

from services.invoicer.clocks import Clock
from services.kit.errors import from_rpc_error
from services.kit.grpc_client import internal_metadata
from services.kit.tenant import TenantKey

TELL_TIMEOUT_S = 3.0


class ClockTimes(Protocol):
    """Who is told what clocks show."""

    async def tell(self, tenant: TenantKey, clock: Clock) -> None:
        """Where the clock is going, or that it has ended. Told twice is told once; DomainError."""


class AccountsClockTimes:
    """Tells accounts."""

    def __init__(self, channel: grpc.aio.Channel, token: SecretStr) -> None:
        self._accounts = accounts_pb2_grpc.AccountsInternalServiceStub(channel)
        self._token = token

    async def tell(self, tenant: TenantKey, clock: Clock) -> None:
        """Where the clock is going, or that it has ended."""
        request = accounts_pb2.SetTestClockRequest(
            organization_id=tenant.organization_id,
            test_clock_id=clock.id,
            customer_id=clock.customer_id,
            revision=clock.revision,
        )
        if clock.end_time is None:
            request.time.FromDatetime(clock.target_time)
        try:
            await self._accounts.SetTestClock(
                request, timeout=TELL_TIMEOUT_S, metadata=internal_metadata(self._token)
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
