"""How much of their quotas customers have used, remembered from what was read and kept up with what
others change. Pure.

What was read knows the snapshot that it was read in. A change is told with its transaction: when
the snapshot sees that, it is in already, so each is added exactly once, in whatever order reads and
looks end. Usage that has grown is added where it lies in the quota's period; after any other change
the customer has to be read again.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

from services.aggregator.domain import QUARTER
from services.aggregator.quotas.change_repository import Change, Snapshot
from services.aggregator.quotas.domain import Customer, QuotaState
from services.aggregator.quotas.states import CustomerStates
from services.kit import clock
from services.kit.money import EXACT

# About 50 MB.
REMEMBERED_MAX = 50_000
_EPOCH = datetime(1970, 1, 1, tzinfo=clock.UTC)


class _Entry:
    """A customer's states as of a snapshot, and by how much each has grown since."""

    __slots__ = ("customer", "grown", "quarters", "snapshot", "states", "until_s")

    def __init__(
        self, customer: Customer, states: CustomerStates, snapshot: Snapshot, until_s: float
    ) -> None:
        self.customer = customer
        self.states = states
        self.snapshot = snapshot
        self.until_s = until_s
        self.quarters = _quarters(states.states)
        self.grown: list[Decimal] | None = None

    def add(self, quarter: int, event_count: int, amount_sum: Decimal) -> None:
        amount = Decimal(event_count) if self.states.counts_events else amount_sum
        for number, quarters in enumerate(self.quarters):
            if quarter in quarters:
                if self.grown is None:
                    self.grown = [Decimal(0)] * len(self.quarters)
                self.grown[number] = EXACT.add(self.grown[number], amount)

    def current(self) -> CustomerStates:
        """With what has grown; the same object until something has."""
        if self.grown is not None:
            self.states = self.states.grown_by(self.grown)
            # They may stand in another order now.
            self.quarters = _quarters(self.states.states)
            self.grown = None
        return self.states


def _quarters(states: Iterable[QuotaState]) -> list[range]:
    """The quarters of an hour that begin in each state's period, by number since 1970."""
    return [
        range(-((_EPOCH - state.start) // QUARTER), -((_EPOCH - state.end) // QUARTER))
        for state in states
    ]


class RememberedStates:
    """Customers' states. What is changed must be told by apply(), before it is recalled."""

    def __init__(self) -> None:
        self._entries: dict[Customer, _Entry] = {}
        # The same, by metric and customer id, as changes name them.
        self._by_metric: dict[int, dict[str, _Entry]] = {}

    def __contains__(self, customer: Customer) -> bool:
        return customer in self._entries

    def remember(
        self, customer: Customer, states: CustomerStates, snapshot: Snapshot, until_s: float
    ) -> None:
        """Keep what was read in a snapshot, until an instant of time.monotonic()."""
        self._put(_Entry(customer, states, snapshot, until_s))

    def take_over(self, others: "RememberedStates") -> None:
        """Keep what others have, in the place of what is kept of the same customers; the oldest
        are forgotten when they are too many.
        """
        for entry in others._entries.values():
            self._forget(entry.customer)
            self._put(entry)
        too_many = max(len(self._entries) - REMEMBERED_MAX, 0)
        for customer in list(self._entries)[:too_many]:
            self._forget(customer)

    def recall(self, customer: Customer, now_s: float, now: datetime) -> CustomerStates | None:
        """What is kept, unless its time is over: `now_s` is of time.monotonic()."""
        entry = self._entries.get(customer)
        if entry is None or now_s >= entry.until_s:
            return None
        until = entry.states.until
        return entry.current() if until is None or now < until else None

    def forget_all(self) -> None:
        """Keep nothing."""
        self._entries.clear()
        self._by_metric.clear()

    def apply(self, change: Change) -> None:
        """Add what has grown, and forget what has changed otherwise."""
        if change.quarters is not None:
            self._grow(change, change.quarters)
            return
        for metric_id, customer_id in zip(change.metric_ids, change.customer_ids, strict=True):
            of_metric = self._by_metric.get(metric_id, {})
            named = [of_metric.get(customer_id)] if customer_id else list(of_metric.values())
            for entry in named:
                if entry and not entry.snapshot.sees(change.transaction_id):
                    self._forget(entry.customer)

    def _grow(self, change: Change, quarters: Sequence[int]) -> None:
        for metric_id, customer_id, quarter, event_count, amount_sum in zip(
            change.metric_ids,
            change.customer_ids,
            quarters,
            change.event_counts,
            change.amount_sums,
            strict=True,
        ):
            entry = self._by_metric.get(metric_id, {}).get(customer_id)
            if entry and not entry.snapshot.sees(change.transaction_id):
                entry.add(quarter, event_count, amount_sum)

    def _put(self, entry: _Entry) -> None:
        self._entries[entry.customer] = entry
        of_metric = self._by_metric.setdefault(entry.states.metric_id, {})
        of_metric[entry.customer.customer_id] = entry

    def _forget(self, customer: Customer) -> None:
        entry = self._entries.pop(customer, None)
        if entry is None:
            return
        of_metric = self._by_metric[entry.states.metric_id]
        del of_metric[customer.customer_id]
        if not of_metric:
            del self._by_metric[entry.states.metric_id]
