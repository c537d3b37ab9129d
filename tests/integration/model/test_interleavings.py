"""One history gives the same usage, in whatever order its events, retries, voids and late
events come, and however they are cut into calls and delivered.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from hypothesis import given, seed
from hypothesis import strategies as st

from services.ingest.domain import Status
from services.ingest.voids import VoidStatus
from services.kit import clock
from services.kit.database import TenantKey
from tests.integration.model.conftest import Stage, model_seeds, model_settings, orders
from tests.integration.model.naive import KINDS, Asked, Model, Rows, Sent
from tests.integration.model.world import REPLICAS, World

# With one seed; there are as many seeds as time allows.
EXAMPLES = 3
PLAYS = 3
COPIES_MAX = 3
ROTATIONS_MAX = 2
EVENTS_PER_CALL_MAX = 5
DAYS = 40
QUARTERS_OF_A_DAY = 96
QUARTER = timedelta(minutes=15)

CALLED = [Status.ACCEPTED, Status.DUPLICATE]
VOIDED = [VoidStatus.VOIDED, VoidStatus.ALREADY_VOIDED]


@dataclass(frozen=True)
class Happened:
    """An event of a history: seconds before now, unlike those of all others, and its end."""

    metric: str
    amount: str
    customer_id: str
    age_s: int
    void: bool


histories = st.lists(
    st.builds(
        Happened,
        st.sampled_from(KINDS),
        st.decimals(0, 1000, places=3).map(str),
        st.sampled_from(["", "user_1", "user_2"]),
        # This quarter of an hour, today, or as late as may be.
        st.integers(1, 900) | st.integers(1, 86_400) | st.integers(34 * 86_400, 35 * 86_400 - 60),
        st.booleans(),
    ),
    min_size=2,
    max_size=16,
    unique_by=lambda happened: happened.age_s,
)


class Play:
    """One tenant to which a history happens in an order of its own."""

    def __init__(
        self, world: World, tenant: TenantKey, now: datetime, order: random.Random
    ) -> None:
        self._world = world
        self._tenant = tenant
        self._now = now
        self._order = order
        self._ids: dict[str, bytes] = {}
        self._rotations = 0

    async def run(self, history: Sequence[Happened]) -> None:
        """All of it, with retries; in the end everything has been delivered."""
        events = [self._sent(number, each) for number, each in enumerate(history)]
        steps: list[Sent | str] = []
        for sent, each in zip(events, history, strict=True):
            steps += [sent] * self._order.randint(1, COPIES_MAX)
            steps += [sent.key] * (self._order.randint(1, COPIES_MAX) if each.void else 0)
        self._order.shuffle(steps)
        # A void that came before its event found nothing, and is asked for again.
        steps += [sent.key for sent, each in zip(events, history, strict=True) if each.void]
        waiting: list[Sent] = []
        for step in steps:
            if isinstance(step, Sent):
                waiting.append(step)
            if len(waiting) == EVENTS_PER_CALL_MAX or not self._order.randrange(4):
                await self._record(waiting)
            if isinstance(step, str):
                await self._void(step)
            await self._meanwhile()
        await self._record(waiting)
        for sent, each in zip(events, history, strict=True):
            if each.void:
                await self._void(sent.key)
        await self._world.settle()

    def _sent(self, number: int, each: Happened) -> Sent:
        time = self._now - timedelta(seconds=each.age_s)
        return Sent(f"key-{number}", each.metric, each.amount, each.customer_id, time)

    def _replica(self) -> int:
        return self._order.randrange(REPLICAS)

    async def _record(self, waiting: list[Sent]) -> None:
        if not waiting:
            return
        call = waiting.copy()
        waiting.clear()
        receipts = await self._world.record(self._tenant, call, self._now, self._replica())
        for sent, (status, event_id) in zip(call, receipts, strict=True):
            assert status == CALLED[sent.key in self._ids]
            assert self._ids.setdefault(sent.key, event_id) == event_id

    async def _void(self, key: str) -> None:
        if key in self._ids:
            replica = self._replica()
            [status] = await self._world.void(self._tenant, [self._ids[key]], replica)
            assert status in VOIDED

    async def _meanwhile(self) -> None:
        """What goes on beside: messages, confirmations, recounts, restarts, closed segments."""
        what = self._order.randrange(12)
        if what < 3:
            batches = await self._world.pending()
            chosen = [self._order.choice(batches) for _ in batches if self._order.randrange(2)]
            await self._world.deliver(chosen, self._replica())
        elif what < 5:
            await self._world.confirm()
        elif what == 5:
            await self._world.recount()
        elif what == 6:
            self._world.restart_aggregators()
        elif what == 7 and self._rotations < ROTATIONS_MAX:
            self._rotations += 1
            await self._world.ingests[self._replica()].rotate()
        elif what == 8:
            await self._world.restart_ingest(self._replica())

    async def usage(self) -> dict[Asked, Rows]:
        """Every figure, whole and by day and customer."""
        return {
            asked: await self._world.usage(self._tenant, asked) for asked in questions(self._now)
        }


def questions(now: datetime) -> list[Asked]:
    """Those about everything, of each kind."""
    start = datetime.combine((now - timedelta(days=DAYS)).date(), datetime.min.time(), now.tzinfo)
    end = start + (DAYS + 2) * QUARTERS_OF_A_DAY * QUARTER
    return [
        Asked(metric, start, end, window, by_customer=by_customer)
        for metric in KINDS
        for window, by_customer in (("TOTAL", True), ("HOUR", False))
    ]


def plainly(history: Sequence[Happened], now: datetime) -> dict[Asked, Rows]:
    """Every figure of what is left of a history."""
    model = Model(now)
    for number, each in enumerate(history):
        time = now - timedelta(seconds=each.age_s)
        sent = Sent(f"key-{number}", each.metric, each.amount, each.customer_id, time)
        model.accept(number.to_bytes(16, "big"), sent)
        if each.void:
            model.take_back(number.to_bytes(16, "big"))
    left = {stored.event_id for stored in model.stored} - model.void
    return {asked: model.usage(asked, left) for asked in questions(now)}


def test_any_interleaving_of_one_history_gives_the_same_usage(stage: Stage) -> None:
    world = stage.world

    async def play(history: list[Happened], order: random.Random) -> None:
        now = clock.now().replace(microsecond=0)
        expected = plainly(history, now)
        for _ in range(PLAYS):
            played = Play(world, await world.new_tenant(), now, order)
            await played.run(history)
            assert await played.usage() == expected

    @model_settings(EXAMPLES)
    @given(history=histories, order=orders)
    def any_interleaving(history: list[Happened], order: random.Random) -> None:
        stage.runner.run(play(history, order))

    for chosen_seed in model_seeds():
        seed(chosen_seed)(any_interleaving)()
