"""CheckQuota, fit for a hot path and never of yesterday.

What was read of a customer is remembered. Whoever changes anything about it notes so in the same
transaction (quota_changes), and each check waits for a look at what was noted that began after the
check came: so a check sees all that was counted, reserved and set before it was asked, by whatever
replica. A look is one small statement for all checks that wait. By how much usage has grown is in
it, and is added to what is remembered; only customers of whom anything else has changed are read
again, many in one transaction.
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
from services.aggregator.quotas.change_repository import Change, Changes
from services.aggregator.quotas.domain import (
    Customer,
    QuotaState,
    check_customer,
    first_refusal,
    no_such_metric,
)
from services.aggregator.quotas.remembered import RememberedStates
from services.aggregator.quotas.states import CustomerStates, load_states
from services.aggregator.watermark import WatermarkSource, newest_watermark
from services.kit import clock
from services.kit.database import Database
from services.kit.errors import FieldChecks, OverloadedError

# However little has changed. All who change usage note it, reconciliation and rebuilds included,
# so this only bounds what somebody has changed by hand. To read again takes 20 times what a check
# does: every 5 s it was what kept one check in a hundred above 10 ms.
REMEMBERED_S = 600.0
READ_TOGETHER_MAX = 500
WAITING_MAX = 20_000
# Transactions that changed something while one read ran: 30 s of 100 a second.
MEANWHILE_MAX = 3_000
# Many who ask at once share a look: two at a time cost 15 % more than four.
GATHER_S = 0.001
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


_ONE = Decimal(1)
_Waiting = dict[Customer, asyncio.Future[CustomerStates | None]]


class QuotaChecks:
    """Answers checks from memory after a look, or together with others from one read."""

    def __init__(self, database: Database, watermark: WatermarkSource) -> None:
        self._database = database
        self._watermark = watermark
        self._remembered = RememberedStates()
        self._to_look: _Waiting = {}
        self._to_read: _Waiting = {}
        self._looking: asyncio.Task[None] | None = None
        # Ends when so many wait for a look, while looks wait for them.
        self._enough: asyncio.Future[None] | None = None
        self._enough_count = 1
        # How many the last look has answered.
        self._together = 1
        self._reading: asyncio.Task[None] | None = None
        # The last look, and when it began: what was committed before is not remembered otherwise.
        self._seen: Changes | None = None
        self._seen_s = 0.0
        # What looks have found since the running read began; None: nobody knows all of it.
        self._meanwhile: list[Change] | None = []

    async def check(
        self, customer: Customer, amount_text: str, at: datetime | None = None
    ) -> QuotaAnswer:
        """Whether the customer may use so much more; "" is 1. `at`: what their test clock shows.

        InvalidArgumentError, OverloadedError, UnavailableError.
        """
        amount = _ONE
        # Who is remembered is a customer.
        if amount_text or customer not in self._remembered:
            checks = FieldChecks()
            amount = checks.decimal(amount_text, "amount") if amount_text else _ONE
            check_customer(customer, checks)
            checks.done()
        if at is None:
            found = await self._find(customer)
        else:
            # No live traffic is that, and what is remembered is of the real time.
            _, states = await self._load([customer], clock.now(), at)
            found = states.get(customer)
        if found is None:
            raise no_such_metric()
        return QuotaAnswer(first_refusal(found.states, amount) is None, found)

    def forget_all(self) -> None:
        """Something has changed that nobody tells."""
        self._remembered.forget_all()
        self._meanwhile = None

    async def _find(self, customer: Customer) -> CustomerStates | None:
        if customer in self._remembered:
            looked = self._wait(self._to_look, customer)
            if self._looking is None:
                self._looking = asyncio.create_task(self._look_for_all())
            elif self._enough is not None and len(self._to_look) >= self._enough_count:
                _end(self._enough)
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
        """One look after the other, until nobody comes for a while: what comes during one, or right
        after it, shares the next. To take a connection out of the pool costs more than a look.

        What waits belongs to this task, so it answers whatever happens.
        """
        waiting: _Waiting = {}
        try:
            while self._to_look:
                try:
                    async with self._database.driving() as driver:
                        while await self._gathered():
                            waiting, self._to_look = self._to_look, {}
                            self._together = len(waiting)
                            await self._look(driver)
                            now_s, now = time.monotonic(), clock.now()
                            for customer, future in waiting.items():
                                found = self._remembered.recall(customer, now_s, now)
                                future.set_result(found)
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

    async def _gathered(self) -> bool:
        """When as many wait as the last look has answered, or after GATHER_S; False: nobody has
        come for REST_S.
        """
        await self._wait_for(1, REST_S)
        if not self._to_look:
            return False
        await self._wait_for(self._together, GATHER_S)
        return True

    async def _wait_for(self, count: int, seconds: float) -> None:
        if len(self._to_look) >= count:
            return
        loop = asyncio.get_running_loop()
        self._enough, self._enough_count = loop.create_future(), count
        timer = loop.call_later(seconds, _end, self._enough)
        try:
            await self._enough
        finally:
            timer.cancel()
            self._enough = None

    async def _look(self, driver: Any) -> None:
        """Take in what has changed; when the last look is long ago, forget everything."""
        begun_s, seen = time.monotonic(), self._seen
        if begun_s - self._seen_s > LOOK_PAUSE_MAX_S:
            seen = None
        found = await change_repository.find_changes(driver, seen.snapshot if seen else None)
        if seen is None or found.definition_version != seen.definition_version:
            self.forget_all()
        for change in found.changes:
            self._remembered.apply(change)
        self._note_meanwhile(found.changes)
        self._seen, self._seen_s = found, begun_s

    def _note_meanwhile(self, changes: Sequence[Change]) -> None:
        """For the running read, which may or may not see them."""
        if self._reading is None or self._meanwhile is None:
            return
        self._meanwhile += changes
        if len(self._meanwhile) > MEANWHILE_MAX:
            self._meanwhile = None

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
        begun_s, now = time.monotonic(), clock.now()
        self._meanwhile = []
        try:
            seen, found = await self._load(list(batch), now)
        except Exception as error:
            _fail(batch, error)
            return
        if self._seen is None:
            # The first look need not forget what was read before it.
            self._seen, self._seen_s = seen, begun_s
        read = RememberedStates()
        for customer, future in batch.items():
            states = found.get(customer)
            if states is not None and _may_remember(states, now):
                read.remember(customer, states, seen.snapshot, begun_s + REMEMBERED_S)
            future.set_result(states)
        if self._meanwhile is not None:
            for change in self._meanwhile:
                read.apply(change)
            self._remembered.take_over(read)

    async def _load(
        self, customers: Sequence[Customer], now: datetime, at: datetime | None = None
    ) -> tuple[Changes, dict[Customer, CustomerStates]]:
        watermark = await newest_watermark(self._watermark)
        async with self._database.transaction() as connection:
            await usage_repository.begin_snapshot(connection)
            seen = await change_repository.read_state(connection)
            found = await load_states(connection, customers, now=now, watermark=watermark, at=at)
            return seen, found


def _may_remember(found: CustomerStates, now: datetime) -> bool:
    """Nobody notes that the watermark passes committed units. And folds that began before their
    metric had a quota note nothing.
    """
    if found.until is not None and found.until <= now:
        return False
    states = found.states
    known_since = min((state.quota.create_time for state in states), default=None)
    return known_since is None or known_since <= now - FOLD_MAX


def _end(rest: asyncio.Future[None]) -> None:
    if not rest.done():
        rest.set_result(None)


def _fail(waiting: _Waiting, error: Exception) -> None:
    for future in waiting.values():
        future.set_exception(error)
        # Its callers may all have gone away.
        future.exception()
