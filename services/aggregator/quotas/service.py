"""What may be done with quotas and reservations. Each use case is one transaction."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator import metric_repository
from services.aggregator.audited import note_quota
from services.aggregator.quotas import repository
from services.aggregator.quotas.checking import FOLD_MAX
from services.aggregator.quotas.domain import (
    ACTIVE,
    COMMITTED,
    RELEASED,
    Customer,
    NewReservation,
    Quota,
    QuotaSettings,
    QuotaState,
    Reservation,
    check_reservation,
    check_settings,
    commit,
    first_refusal,
    key_conflict,
    may_release,
    no_such_metric,
    quota_exceeded,
)
from services.aggregator.quotas.repository import Holder
from services.aggregator.quotas.states import load_states
from services.aggregator.quotas.threshold_repository import touch_after_setting
from services.aggregator.watermark import WatermarkSource, newest_watermark
from services.kit import clock, pages
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldChecks, NotFoundError, OverloadedError
from services.kit.etag import Expectation
from services.kit.ids import is_id, new_id

log = structlog.get_logger()

# Reservations wait for one another, customer by customer. The fold needs connections too.
RESERVING_MAX = 2
RESERVING_WAITING_MAX = 10_000


class Quotas:
    """Quotas, set by the organization."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set(
        self,
        tenant: TenantKey,
        settings: QuotaSettings,
        limit_text: str | None,
        expect: Expectation[Quota] | None = None,
        by_key: str = "",
        times: Mapping[str, datetime] | None = None,
    ) -> tuple[Quota, bool]:
        """Make a quota or set it in full; whether it was made. `limit_text` None: unlimited.
        `times`: what it is for whom it limits where test clocks run, ("") for all others.

        InvalidArgumentError names all wrong fields; StaleError when it is not as `expect` has it.
        """
        checks = FieldChecks()
        limit = None if limit_text is None else checks.decimal(limit_text, "limit")
        now = clock.now()
        async with self._database.transaction() as connection:
            metric = await metric_repository.get_metric(connection, tenant, settings.metric)
            check_settings(settings, metric, checks)
            assert metric is not None
            settings = replace(settings, limit=limit)
            before = await repository.lock_quota(connection, metric.metric_id, settings)
            if expect is not None:
                expect(before)
            quota, created = await repository.put_quota(
                connection, new_id("quota"), metric.metric_id, settings, now
            )
            for customer_id, time in (times or {settings.customer_id: now}).items():
                await touch_after_setting(connection, metric.metric_id, customer_id, time, FOLD_MAX)
            await note_quota(connection, tenant, before, quota, by_key)
        log.info("quota_set", organization_id=tenant.organization_id, quota_id=quota.quota_id)
        return quota, created

    async def get(self, tenant: TenantKey, quota_id: str) -> Quota:
        """The quota; NotFoundError when there is none."""
        async with self._database.transaction() as connection:
            return await _quota(connection, tenant, quota_id)

    async def list(
        self,
        tenant: TenantKey,
        metric: str,
        customer_id: str | None,
        page_size: int,
        page_token: str,
    ) -> tuple[list[Quota], str]:
        """A page of quotas, newest first, and the next page's token ("" after the last)."""
        limit = pages.page_limit(page_size)
        before_id = None
        if page_token:
            (before_id,) = pages.decode_token(page_token, 1)
            if not is_id(before_id, "quota"):
                raise pages.invalid_token()
        if any("\0" in text for text in (metric, customer_id or "")):
            return [], ""
        async with self._database.transaction() as connection:
            found = await repository.list_quotas(
                connection,
                tenant,
                metric=metric,
                customer_id=customer_id,
                before_id=before_id,
                limit=limit + 1,
            )
        if len(found) <= limit:
            return found, ""
        return found[:limit], pages.encode_token(found[limit - 1].quota_id)

    async def delete(
        self,
        tenant: TenantKey,
        quota_id: str,
        by_key: str = "",
        expect: Expectation[Quota] | None = None,
    ) -> None:
        """Take a quota away; NotFoundError when there is none, StaleError when it is not as
        `expect` has it.
        """
        async with self._database.transaction() as connection:
            quota = await _quota(connection, tenant, quota_id, lock=True)
            if expect is not None:
                expect(quota)
            if not await repository.delete_quota(connection, quota_id):
                raise _no_quota()
            await note_quota(connection, tenant, quota, None, by_key)
        log.info("quota_deleted", organization_id=tenant.organization_id, quota_id=quota_id)


async def _quota(
    connection: AsyncConnection, tenant: TenantKey, quota_id: str, *, lock: bool = False
) -> Quota:
    quota = None
    if is_id(quota_id, "quota"):
        quota = await repository.get_quota(connection, tenant, quota_id, lock=lock)
    if quota is None:
        raise _no_quota()
    return quota


def _no_quota() -> NotFoundError:
    return NotFoundError("No such quota")


@dataclass(frozen=True, slots=True)
class Reserved:
    """A reservation, and the quotas that apply, with it in, tightest first."""

    reservation: Reservation
    states: Sequence[QuotaState]


class Reservations:
    """Units set aside. No more are set aside than there are, on however many replicas."""

    def __init__(self, database: Database, watermark: WatermarkSource) -> None:
        self._database = database
        self._watermark = watermark
        self._turns = asyncio.Semaphore(RESERVING_MAX)
        self._waiting = 0

    async def reserve(
        self,
        customer: Customer,
        amount_text: str,
        ttl_s: int,
        idempotency_key: str,
        at: datetime | None = None,
    ) -> Reserved:
        """Set units aside, for so long by the real time; the same key again gives the same
        reservation. `at`: what the customer's test clock shows.

        InvalidArgumentError; PreconditionError (quota_exceeded); ConflictError
        (idempotency_conflict); OverloadedError.
        """
        checks = FieldChecks()
        amount = checks.decimal(amount_text, "amount")
        new = NewReservation(customer, amount, ttl_s, idempotency_key)
        check_reservation(new, checks)
        if self._waiting >= RESERVING_WAITING_MAX:
            raise OverloadedError("Too many reservations are waiting", retry_after_s=1.0)
        self._waiting += 1
        try:
            async with self._turns:
                # Before anything is read: what it promises is counted then.
                watermark = await newest_watermark(self._watermark)
                async with self._database.transaction() as connection:
                    reserved = await _reserve(connection, new, watermark, at)
        finally:
            self._waiting -= 1
        return reserved

    async def get(self, tenant: TenantKey, reservation_id: str) -> Reservation:
        """The reservation; NotFoundError when there is none."""
        async with self._database.transaction() as connection:
            return await _reservation(connection, tenant, reservation_id)

    async def commit(self, tenant: TenantKey, reservation_id: str, amount_text: str) -> Reservation:
        """The units were used and recorded; "" is all of them. NotFoundError, PreconditionError."""
        checks = FieldChecks()
        amount = checks.decimal(amount_text, "amount") if amount_text else None
        checks.done()
        now = clock.now()
        async with self._database.transaction() as connection:
            found = await _reservation(connection, tenant, reservation_id, for_update=True)
            used = commit(found, amount, now)
            if used is None:
                return found
            await repository.finish_reservation(connection, reservation_id, COMMITTED, used, now)
        return replace(found, status=COMMITTED, committed_amount=used)

    async def release(self, tenant: TenantKey, reservation_id: str) -> Reservation:
        """Give the units back. NotFoundError, PreconditionError."""
        async with self._database.transaction() as connection:
            found = await _reservation(connection, tenant, reservation_id, for_update=True)
            if not may_release(found):
                return found
            await repository.finish_reservation(
                connection, reservation_id, RELEASED, None, clock.now()
            )
        return replace(found, status=RELEASED)


async def _reserve(
    connection: AsyncConnection,
    new: NewReservation,
    watermark: datetime | None,
    at: datetime | None,
) -> Reserved:
    customer = new.customer
    metric = await metric_repository.get_metric(connection, customer.tenant, customer.metric)
    if metric is None:
        raise no_such_metric()
    holder = Holder(metric.metric_id, customer.customer_id)
    # Each statement from here on sees what those before us in the queue have committed.
    await repository.lock_holder(connection, holder)
    now = clock.now()
    found = await load_states(connection, [customer], now=now, watermark=watermark, at=at)
    states = found[customer].states
    if new.idempotency_key and (made := await _made_before(connection, new)):
        return Reserved(made, states)
    if refusal := first_refusal(states, new.amount):
        raise quota_exceeded(refusal)
    made = Reservation(
        reservation_id=new_id("res"),
        metric=customer.metric,
        customer_id=customer.customer_id,
        amount=new.amount,
        status=ACTIVE,
        create_time=now,
        expire_time=now + timedelta(seconds=new.ttl_s),
    )
    if not await repository.insert_reservation(
        connection, customer.tenant, metric.metric_id, new, made
    ):
        # Another customer's reservation has taken the key since we looked.
        raise key_conflict()
    return Reserved(made, [state.with_reserved(new.amount) for state in states])


async def _made_before(connection: AsyncConnection, new: NewReservation) -> Reservation | None:
    made = await repository.find_by_key(connection, new.customer.tenant, new.idempotency_key)
    if made is not None and not made.answers(new):
        raise key_conflict()
    return made


async def _reservation(
    connection: AsyncConnection,
    tenant: TenantKey,
    reservation_id: str,
    *,
    for_update: bool = False,
) -> Reservation:
    reservation = None
    if is_id(reservation_id, "res"):
        reservation = await repository.get_reservation(
            connection, tenant, reservation_id, for_update=for_update
        )
    if reservation is None:
        raise NotFoundError("No such reservation")
    return reservation
