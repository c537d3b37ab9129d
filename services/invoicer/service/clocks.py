"""Test clocks: made, advanced, ended. What is due by their time is done in the background."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.billing_events import rfc3339
from services.invoicer.checks import is_customer_id
from services.invoicer.clock_checks import CLOCKS_MAX, check_advance, check_new_clock
from services.invoicer.clocks import Clock, ClockStatus
from services.invoicer.repository import clocks, customers
from services.invoicer.service.noting import note
from services.invoicer.service.paging import Page, id_position, next_token
from services.invoicer.service.wakes import Wakes
from services.kit import pages
from services.kit.database import Database, TenantKey
from services.kit.errors import ConflictError, NotFoundError, PreconditionError
from services.kit.ids import is_id, new_id

log = structlog.get_logger()


class Clocks:
    """The time of customers in test mode."""

    def __init__(self, database: Database, now: Callable[[], datetime], wakes: Wakes) -> None:
        self._database = database
        self._now = now
        self._wakes = wakes

    async def create_clock(
        self, tenant: TenantKey, customer_id: str, time: datetime | None, *, by_key: str = ""
    ) -> Clock:
        """A clock of one customer, who comes into being if unknown, or ("") of all; it goes to
        `time` (None: it stays where their time is). PreconditionError in live mode; ConflictError
        when one of them is on a running clock.
        """
        if tenant.mode != "test":
            raise PreconditionError(
                "Test clocks are for test mode: use a key of it", reason="test_mode_only"
            )
        real = self._now()
        async with self._database.transaction() as connection:
            if is_customer_id(customer_id):
                await customers.ensure_customers(connection, [(tenant, customer_id)], real)
            reached = await clocks.time_reached(connection, tenant, customer_id)
            earliest = max(real, reached or real)
            wanted = earliest if time is None else time
            check_new_clock(customer_id, wanted, earliest, real)
            clock = Clock(
                id=new_id("clk"),
                customer_id=customer_id,
                time=earliest,
                target_time=wanted,
                ready=False,
                accept_time=real,
                create_time=real,
            )
            await _insert(connection, tenant, clock)
            told = {**_shown(clock), "advancingTo": rfc3339(wanted)}
            await note(connection, tenant, "test_clock.created", by_key, clock.id, told)
        log.info("test_clock_created", clock_id=clock.id)
        self._wakes.scheduler()
        return clock

    async def get_clock(self, tenant: TenantKey, clock_id: str) -> Clock:
        """The clock."""
        async with self._database.transaction() as connection:
            return await _require(connection, tenant, clock_id)

    async def list_clocks(
        self, tenant: TenantKey, customer_id: str, page: Page
    ) -> tuple[list[Clock], str]:
        """A page of clocks, ended ones too, newest first; of one customer or ("") of all."""
        limit, before_id = pages.page_limit(page.size), id_position(page.token, "clk")
        if customer_id and not is_customer_id(customer_id):
            return [], ""
        async with self._database.transaction() as connection:
            found = await clocks.list_clocks(
                connection, tenant, customer_id=customer_id, before_id=before_id, limit=limit + 1
            )
        return found[:limit], next_token([each.id for each in found], limit)

    async def advance_clock(
        self, tenant: TenantKey, clock_id: str, time: datetime, *, by_key: str = ""
    ) -> Clock:
        """Let it go on to `time`: all that is due by then is done, one thing after the other.

        PreconditionError while it is advancing, and when it has ended.
        """
        async with self._database.transaction() as connection:
            clock = await _require(connection, tenant, clock_id, lock=True)
            if clock.status is ClockStatus.ENDED:
                raise PreconditionError("The test clock has ended", reason="test_clock_ended")
            if clock.status is ClockStatus.ADVANCING:
                raise PreconditionError(
                    "The test clock is advancing: wait until it is READY",
                    reason="test_clock_advancing",
                )
            real = self._now()
            check_advance(clock, time, real)
            clock = replace(
                clock,
                target_time=time,
                ready=False,
                accept_time=max(real, clock.accept_time),
                revision=clock.revision + 1,
            )
            await clocks.update_clock(connection, tenant, clock)
            told = {**_shown(clock), "advancingTo": rfc3339(time)}
            await note(connection, tenant, "test_clock.advanced", by_key, clock.id, told)
        log.info("test_clock_advancing", clock_id=clock.id)
        self._wakes.scheduler()
        return clock

    async def end_clock(self, tenant: TenantKey, clock_id: str, *, by_key: str = "") -> Clock:
        """Stop it where it is; repeating it changes nothing. What was made stays, and the time of
        those who were on it goes on once the real time has caught up.
        """
        async with self._database.transaction() as connection:
            clock = await _require(connection, tenant, clock_id, lock=True)
            if clock.end_time is not None:
                return clock
            clock = replace(
                clock,
                target_time=clock.time,
                ready=True,
                end_time=self._now(),
                revision=clock.revision + 1,
            )
            await clocks.update_clock(connection, tenant, clock)
            told = _shown(clock)
            await note(connection, tenant, "test_clock.ended", by_key, clock.id, told)
        log.info("test_clock_ended", clock_id=clock.id)
        self._wakes.scheduler()
        return clock


def _shown(clock: Clock) -> dict[str, object]:
    """What the audit log tells of it, with the names of the HTTP contract."""
    return {"customerId": clock.customer_id or None, "now": rfc3339(clock.time)}


async def _insert(connection: AsyncConnection, tenant: TenantKey, clock: Clock) -> None:
    try:
        async with connection.begin_nested():
            await clocks.insert_clock(connection, tenant, clock)
    except IntegrityError:
        whose = "The customer is" if clock.customer_id else "Customers are"
        raise ConflictError(
            f"{whose} on a test clock already; end it first", reason="test_clock_running"
        ) from None
    # The insert has locked the organization's clocks: nobody else counts now.
    if await clocks.count_running(connection, tenant) > CLOCKS_MAX:
        message = f"At most {CLOCKS_MAX} test clocks run at a time; end some"
        raise PreconditionError(message, reason="too_many_test_clocks")


async def _require(
    connection: AsyncConnection, tenant: TenantKey, clock_id: str, *, lock: bool = False
) -> Clock:
    found = None
    if is_id(clock_id, "clk"):
        found = await clocks.get_clock(connection, tenant, clock_id, lock=lock)
    if found is None:
        raise NotFoundError("No such test clock")
    return found
