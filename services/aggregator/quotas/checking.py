"""CheckQuota, fit for a hot path and never of yesterday.

What was read of a customer is remembered. Whoever changes anything about it notes so in the same
transaction (quota_changes), and each check waits for a look at what was noted that began after the
check came: so a check sees all that was counted, reserved and set before it was asked, by whatever
replica. A look is one small statement for all checks that wait; only customers of whom something
has changed are read again, many in one transaction.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from services.aggregator import usage_repository
from services.aggregator.quotas import change_repository
from services.aggregator.quotas.change_repository import Changes
from services.aggregator.quotas.domain import (
    Customer,
    QuotaState,
    check_customer,
    first_refusal,
    no_such_metric,
)
from services.aggregator.quotas.repository import Holder
from services.aggregator.quotas.states import CustomerStates, load_states
from services.aggregator.watermark import WatermarkSource, newest_watermark
from services.kit import clock
from services.kit.database import Database
from services.kit.errors import FieldChecks, OverloadedError

# However little has changed. All who change usage note it, reconciliation and rebuilds included,
# so this only bounds what somebody has changed by hand. To read again takes 20 times what a check
# does: every 5 s it was what kept one check in a hundred above 10 ms.
REMEMBERED_S = 600.0
# About 50 MB.
REMEMBERED_MAX = 50_000
READ_TOGETHER_MAX = 500
WAITING_MAX = 20_000
# For so long the connection of looks is kept when nobody comes.
REST_S = 0.05
# After a longer pause all is forgotten, well before the changes are.
LOOK_PAUSE_MAX_S = 30.0
# No fold that does not know that a metric has quotas runs on for longer; see Quotas.set.
FOLD_MAX = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class QuotaAnswer:
    """Whether a customer may use more, and the quotas that apply, tightest first."""

    allowed: bool
    found: CustomerStates

    @property
    def states(self) -> Sequence[QuotaState]:
        """Of each quota that applies."""
        return self.found.states


@dataclass(frozen=True, slots=True)
class _Remembered:
    states: CustomerStates
    until_s: float
    # CustomerStates.until.
    until: datetime | None


_Waiting = dict[Customer, asyncio.Future[CustomerStates | None]]


class QuotaChecks:
    """Answers checks from memory after a look, or together with others from one read."""

    def __init__(self, database: Database, watermark: WatermarkSource) -> None:
        self._database = database
        self._watermark = watermark
        self._remembered: dict[Customer, _Remembered] = {}
        self._customers: dict[Holder, Customer] = {}
        self._to_look: _Waiting = {}
        self._to_read: _Waiting = {}
        self._looking: asyncio.Task[None] | None = None
        # Set while looks rest.
        self._nobody_waits: asyncio.Future[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        # The last look, and when it began: what was committed before is not remembered otherwise.
        self._seen: Changes | None = None
        self._seen_s = 0.0
        # What looks have found since the running read began.
        self._changed: set[Holder] = set()
        self._all_changed = False

    async def check(
        self, customer: Customer, amount_text: str, at: datetime | None = None
    ) -> QuotaAnswer:
        """Whether the customer may use so much more; "" is 1. `at`: what their test clock shows.

        InvalidArgumentError, OverloadedError, UnavailableError.
        """
        checks = FieldChecks()
        amount = checks.decimal(amount_text, "amount") if amount_text else Decimal(1)
        check_customer(customer, checks)
        checks.done()
        if at is None:
            found = await self._find(customer)
        else:
            # No live traffic is that, and what is remembered is of the real time.
            found = (await self._load([customer], clock.now(), at)).get(customer)
        if found is None:
            raise no_such_metric()
        return QuotaAnswer(first_refusal(found.states, amount) is None, found)

    def forget(self, customer: Customer) -> None:
        """Something of this customer has changed here: the next look would find it too."""
        self._remembered.pop(customer, None)

    def forget_all(self) -> None:
        """Something has changed, maybe of all customers."""
        self._remembered.clear()
        self._customers.clear()
        self._all_changed = True

    async def _find(self, customer: Customer) -> CustomerStates | None:
        if customer in self._remembered:
            looked = self._wait(self._to_look, customer)
            if self._looking is None:
                self._looking = asyncio.create_task(self._look_for_all())
            elif self._nobody_waits is not None and not self._nobody_waits.done():
                self._nobody_waits.set_result(None)
            # One caller that goes away must not cancel the others' answer.
            if found := await asyncio.shield(looked):
                return found
        read = self._wait(self._to_read, customer)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all())
        return await asyncio.shield(read)

    def _wait(self, waiting: _Waiting, customer: Customer) -> asyncio.Future[CustomerStates | None]:
        future = waiting.get(customer)
        if future is None:
            if len(self._to_look) + len(self._to_read) >= WAITING_MAX:
                raise OverloadedError("Too many checks are waiting", retry_after_s=1.0)
            future = waiting[customer] = asyncio.get_running_loop().create_future()
        return future

    async def _look_for_all(self) -> None:
        """One look after the other, until nobody comes for a while: what comes during one shares
        the next. To take a connection out of the pool costs more than a look.

        What waits belongs to this task, so it answers whatever happens.
        """
        waiting: _Waiting = {}
        try:
            while self._to_look:
                try:
                    async with self._database.driving() as driver:
                        while await self._somebody_waits():
                            waiting, self._to_look = self._to_look, {}
                            await self._look(driver)
                            for customer, future in waiting.items():
                                future.set_result(self._recall(customer))
                            waiting = {}
                except Exception as error:
                    # Nobody knows what has changed.
                    self._seen = None
                    self.forget_all()
                    if not waiting:
                        waiting, self._to_look = self._to_look, {}
                    _fail(waiting, error)
                    waiting = {}
        finally:
            self._looking = None

    async def _somebody_waits(self) -> bool:
        """At once when somebody does; False: nobody has come for REST_S."""
        if self._to_look:
            return True
        loop = asyncio.get_running_loop()
        rest = self._nobody_waits = loop.create_future()
        timer = loop.call_later(REST_S, _end, rest)
        try:
            await rest
        finally:
            timer.cancel()
            self._nobody_waits = None
        return bool(self._to_look)

    async def _look(self, driver: Any) -> None:
        """Forget what has changed; when the last look is long ago, everything."""
        begun_s, seen = time.monotonic(), self._seen
        if begun_s - self._seen_s > LOOK_PAUSE_MAX_S:
            seen = None
        found = await change_repository.find_changes(driver, seen.snapshot if seen else None)
        if seen is None or found.definition_version != seen.definition_version:
            self.forget_all()
        for holder in found.holders:
            if not holder.customer_id:
                self.forget_all()
            elif customer := self._customers.pop(holder, None):
                self.forget(customer)
        self._changed |= found.holders
        self._seen, self._seen_s = found, begun_s

    def _recall(self, customer: Customer) -> CustomerStates | None:
        """What is remembered, right after a look."""
        entry = self._remembered.get(customer)
        if entry is None or time.monotonic() >= entry.until_s:
            return None
        return entry.states if entry.until is None or clock.now() < entry.until else None

    async def _read_all(self) -> None:
        """Until nobody waits. What waits belongs to this task, so it answers whatever happens."""
        try:
            while self._to_read:
                batch = dict(list(self._to_read.items())[:READ_TOGETHER_MAX])
                for customer in batch:
                    del self._to_read[customer]
                await self._read(batch)
        finally:
            self._reading = None

    async def _read(self, batch: _Waiting) -> None:
        # From before the read: a state is never remembered for longer than it is true.
        until_s, now = time.monotonic() + REMEMBERED_S, clock.now()
        self._changed.clear()
        self._all_changed = False
        try:
            found = await self._load(list(batch), now)
        except Exception as error:
            _fail(batch, error)
            return
        for customer, future in batch.items():
            states = found.get(customer)
            if states is not None:
                self._remember(customer, states, until_s, now)
            future.set_result(states)
        for customer in list(self._remembered)[: max(len(self._remembered) - REMEMBERED_MAX, 0)]:
            del self._remembered[customer]

    def _remember(
        self, customer: Customer, found: CustomerStates, until_s: float, now: datetime
    ) -> None:
        """Unless a look has found a change that the read may not have seen, or none would.

        Nobody notes that a reservation expires, or that the watermark passes one. And folds that
        began before their metric had a quota note nothing.
        """
        holder = Holder(found.metric_id, customer.customer_id)
        if self._all_changed or holder in self._changed:
            return
        states = found.states
        if any(state.reserved for state in states):
            return
        known_since = min((state.quota.create_time for state in states), default=None)
        if known_since is not None and known_since > now - FOLD_MAX:
            return
        self._remembered[customer] = _Remembered(found, until_s, found.until)
        self._customers[holder] = customer

    async def _load(
        self, customers: Sequence[Customer], now: datetime, at: datetime | None = None
    ) -> dict[Customer, CustomerStates]:
        watermark = await newest_watermark(self._watermark)
        async with self._database.transaction() as connection:
            await usage_repository.begin_snapshot(connection)
            return await load_states(connection, customers, now=now, watermark=watermark, at=at)


def _end(rest: asyncio.Future[None]) -> None:
    if not rest.done():
        rest.set_result(None)


def _fail(waiting: _Waiting, error: Exception) -> None:
    for future in waiting.values():
        future.set_exception(error)
        # Its callers may all have gone away.
        future.exception()
