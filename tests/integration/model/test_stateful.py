"""ingest and aggregator against the naive model, whatever callers, networks and crashes do.

Hypothesis chooses what happens; every answer on the way is compared with the model's, and in the
end everything is delivered and every figure compared.
"""

import random
from collections.abc import Coroutine, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from usageflow.events.v1.events_pb2 import EventBatch

from services.ingest.domain import Status
from services.kit import clock, faults
from services.kit.faults import Fault
from tests.integration.model.conftest import Stage, model_seeds, model_settings, orders
from tests.integration.model.naive import KINDS, SUBTRACTABLE, Asked, Model, Sent, nothing
from tests.integration.model.world import REPLICAS, ids_in

# With one seed; there are as many seeds as time allows.
EXAMPLES = 10
FAULT_EXAMPLES = 200
KEYS = ["k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8"]
# Few of each, so that events meet: equal amounts written otherwise, ties in time, shared quarters.
AMOUNTS = ["1", "1.0", "0", "2.5", "0.1", "0.2", "10", "12345678901234567890.000000000001"]
CUSTOMERS = ["", "user_1", "user_2"]
AGES = [
    timedelta(0),
    timedelta(seconds=1),
    timedelta(minutes=14),
    timedelta(minutes=16),
    timedelta(hours=26),
    timedelta(days=34, hours=23),
    timedelta(minutes=-4),
    # Refused:
    timedelta(days=36),
    timedelta(minutes=-6),
]
QUARTER_S = 900
# Each is looked at by all that comes later.
ROTATIONS_MAX = 3
DELAYS_S = [0.0, 0.001, 0.003, 0.01]

Answer = TypeVar("Answer")

replicas = st.integers(0, REPLICAS - 1)
keyed = st.sampled_from(KEYS)


def events_of(keys: st.SearchStrategy[str]) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    """Calls of events as (key, metric, amount, customer, age or None)."""
    one = st.tuples(
        keys,
        st.sampled_from(KINDS),
        st.sampled_from(AMOUNTS),
        st.sampled_from(CUSTOMERS),
        st.none() | st.sampled_from(AGES),
    )
    return st.lists(one, min_size=1, max_size=12)


def quarter_after(time: datetime, quarters: int) -> datetime:
    """A quarter of an hour, so many after the one in which `time` is."""
    begun = datetime.fromtimestamp(time.timestamp() // QUARTER_S * QUARTER_S, time.tzinfo)
    return begun + timedelta(seconds=quarters * QUARTER_S)


class IngestAndAggregator(RuleBasedStateMachine):
    """`stage` is set by the test."""

    stage: Stage

    def run(self, doing: Coroutine[Any, Any, Answer]) -> Answer:
        """Do something in the world."""
        return self.stage.runner.run(doing)

    @initialize()
    def begin(self) -> None:
        self.world = self.stage.world
        self.now = clock.now().replace(microsecond=0)
        self.tenant = self.run(self.world.new_tenant())
        self.model = Model(self.now)
        self.sent: list[list[Sent]] = []
        self.delivered: list[EventBatch] = []
        self.counted: set[bytes] = set()
        self.taken_out: set[bytes] = set()
        self.rotations = 0

    def calls(self, events: Sequence[tuple[Any, ...]]) -> list[Sent]:
        """As they are sent; remembered for retries."""
        call = [
            Sent(key, metric, amount, customer, None if age is None else self.now - age)
            for key, metric, amount, customer, age in events
        ]
        self.sent.append(call)
        return call

    def accept(self, call: Sequence[Sent], receipts: Sequence[tuple[Status, bytes]]) -> None:
        """The model stores what was accepted."""
        for sent, (status, event_id) in zip(call, receipts, strict=True):
            if status == Status.ACCEPTED:
                self.model.accept(event_id, sent)

    def record(self, call: Sequence[Sent], replica: int) -> None:
        """Send a call, compare its receipts."""
        expected = self.model.call(call)
        receipts = self.run(self.world.record(self.tenant, call, self.now, replica))
        assert [status for status, _ in receipts] == expected
        self.accept(call, receipts)

    @rule(events=events_of(st.just("") | keyed), replica=replicas)
    def events_are_sent(self, events: list[tuple[Any, ...]], replica: int) -> None:
        self.record(self.calls(events), replica)

    @precondition(lambda self: self.sent)
    @rule(order=orders, replica=replicas)
    def a_call_is_sent_again(self, order: random.Random, replica: int) -> None:
        """In another order, and so that events without a key are new ones."""
        call = list(order.choice(self.sent))
        order.shuffle(call)
        self.record(call, replica)

    @rule(events=events_of(keyed), delay_s=st.sampled_from(DELAYS_S), replica=replicas)
    def ingest_crashes_and_the_caller_tries_again(
        self, events: list[tuple[Any, ...]], delay_s: float, replica: int
    ) -> None:
        call = self.calls(events)
        expected = self.model.call(call)
        self.run(self.world.crash_while_recording(self.tenant, call, self.now, replica, delay_s))
        receipts = self.run(self.world.record(self.tenant, call, self.now, replica))
        for sent, (status, event_id), wanted in zip(call, receipts, expected, strict=True):
            if wanted == Status.ACCEPTED:
                # Perhaps the crashed one had stored it; nobody was told.
                assert status in (Status.ACCEPTED, Status.DUPLICATE)
                self.model.accept(event_id, sent)
            else:
                assert status == wanted

    @precondition(lambda self: self.model.stored)
    @rule(order=orders, count=st.integers(1, 4), replica=replicas)
    def events_are_voided(self, order: random.Random, count: int, replica: int) -> None:
        """Among them some that are void, and one that nobody knows."""
        ids = [order.choice(self.model.stored).event_id for _ in range(count)]
        ids += [order.randbytes(16)] * order.randint(0, 1)
        expected = [self.model.take_back(event_id) for event_id in ids]
        assert self.run(self.world.void(self.tenant, ids, replica)) == expected

    @rule(order=orders, both=st.booleans())
    def messages_are_delivered(self, order: random.Random, both: bool) -> None:
        """Some of those that are waiting, and of those that were delivered; some twice."""
        batches = [
            *self.run(self.world.pending()),
            *order.sample(self.delivered, len(self.delivered)),
        ]
        chosen = [order.choice(batches) for _ in range(order.randint(0, 6))] if batches else []
        cut = order.randint(0, len(chosen)) if both else len(chosen)
        self.run(self.deliver(chosen[:cut], chosen[cut:]))

    async def deliver(self, *shares: Sequence[EventBatch]) -> None:
        """Each aggregator gets its share."""
        for replica, share in enumerate(shares):
            await self.world.deliver(share, replica)
            for batch in share:
                events, voided = ids_in(batch, self.tenant)
                self.counted |= events
                self.taken_out |= voided
                self.delivered.append(batch)

    @rule()
    def ingest_learns_what_was_counted(self) -> None:
        self.run(self.world.confirm())

    @rule()
    def buckets_are_counted_anew(self) -> None:
        self.run(self.world.recount())

    @rule(age=st.sampled_from([timedelta(days=34), timedelta(hours=25), timedelta(0)]))
    def usage_is_rolled_up(self, age: timedelta) -> None:
        """What comes later for the time before is counted in both."""
        self.run(self.world.roll_up(self.now - age))

    @rule()
    def aggregators_are_restarted(self) -> None:
        self.world.restart_aggregators()

    @rule(replica=replicas)
    def ingest_is_restarted(self, replica: int) -> None:
        self.run(self.world.restart_ingest(replica))

    @precondition(lambda self: self.rotations < ROTATIONS_MAX)
    @rule(replica=replicas)
    def a_segment_is_closed(self, replica: int) -> None:
        """Keys that were stored lie in a closed segment from now on; the other ingest learns it
        when it writes.
        """
        self.rotations += 1
        self.run(self.world.ingests[replica].rotate())

    def assert_usage(self, asked: Asked, counted: set[bytes]) -> None:
        """What is told is what the model tells."""
        expected = self.model.usage(asked, counted)
        if not expected and asked.window == "TOTAL" and not asked.by_customer:
            expected = nothing(asked)
        assert self.run(self.world.usage(self.tenant, asked)) == expected, asked

    @rule(metric=st.sampled_from(SUBTRACTABLE), by_customer=st.booleans())
    def usage_is_that_of_what_was_counted(self, metric: str, by_customer: bool) -> None:
        """At any time; what was delivered and what not is part of the answer."""
        asked = Asked(metric, *self.everything(), by_customer=by_customer)
        self.assert_usage(asked, self.counted - self.taken_out)

    def everything(self) -> tuple[datetime, datetime]:
        """A range in which all events are."""
        return quarter_after(self.now, -40 * 96), quarter_after(self.now, 4)

    @rule(
        metric=st.sampled_from(KINDS),
        window=st.sampled_from(["TOTAL", "DAY", "HOUR"]),
        customer_id=st.none() | st.sampled_from(CUSTOMERS[1:]),
        by_customer=st.booleans(),
        start=st.sampled_from([-3400, -200, -110, -2, -1, 0]),
        quarters=st.integers(1, 120),
    )
    def usage_is_exact_once_all_is_delivered(
        self,
        metric: str,
        window: str,
        customer_id: str | None,
        by_customer: bool,
        start: int,
        quarters: int,
    ) -> None:
        self.settle()
        begun = quarter_after(self.now, start)
        end = quarter_after(self.now, start + quarters)
        self.assert_usage(Asked(metric, begun, end, window, customer_id, by_customer), self.left())

    def settle(self) -> None:
        """Nothing is under way any more."""
        self.run(self.world.settle())
        self.counted = {stored.event_id for stored in self.model.stored}
        self.taken_out = set(self.model.void)

    def left(self) -> set[bytes]:
        """What is not void."""
        return {each.event_id for each in self.model.stored} - self.model.void

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        self.settle()
        stored = self.run(self.world.stored_ids(self.tenant))
        assert sorted(stored) == sorted(each.event_id for each in self.model.stored)
        self.run(self.world.assert_rolled_up())
        for metric in KINDS:
            for window, by_customer in (("TOTAL", False), ("DAY", True)):
                asked = Asked(metric, *self.everything(), window=window, by_customer=by_customer)
                self.assert_usage(asked, self.left())


def play(stage: Stage, chosen_seed: int, how: settings) -> None:
    """Let Hypothesis try to find what the model does not do."""

    class Machine(IngestAndAggregator):
        pass

    Machine.stage = stage
    run_state_machine_as_test(seed(chosen_seed)(Machine), settings=how)


def test_ingest_and_aggregator_do_what_the_model_does(stage: Stage) -> None:
    for chosen_seed in model_seeds():
        play(stage, chosen_seed, model_settings(EXAMPLES))


@pytest.fixture
def seeded(request: pytest.FixtureRequest) -> Iterator[None]:
    """A deliberate bug is on meanwhile."""
    faults.install({faults.NAME: request.param, faults.ALLOWED: "1"})
    yield
    faults.install({})


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize(
    "seeded", [Fault.INBOX_OFF, Fault.IGNORED_CONFLICT, Fault.ACK_BEFORE_COMMIT], indirect=True
)
def test_a_deliberate_bug_is_found(stage: Stage) -> None:
    """Otherwise the test above would prove nothing."""
    unshrunk = settings(
        model_settings(FAULT_EXAMPLES), phases=[Phase.generate], report_multiple_bugs=False
    )
    with pytest.raises((AssertionError, Flaky)):
        play(stage, next(model_seeds()), unshrunk)
