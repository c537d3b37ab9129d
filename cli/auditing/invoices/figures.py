"""A metric's usage, counted plainly from its raw events. Pure."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from usageflow.events.v1.events_pb2 import UsageEvent
from usageflow.ingest.v1.ingest_pb2 import StoredEvent

from cli.auditing.invoices.prices import Used, depends_on_events, tried
from cli.auditing.parts import Metric
from cli.auditing.recount import Tally, text_of

ID_PREFIX = "evt_"


class UsageCount:
    """Counts the events behind a line, by what its price asks for."""

    def __init__(self, metric: Metric, price: Mapping[str, Any]) -> None:
        self._metric = metric
        self._model = str(price["model"])
        self._prices = tried(price["parameters"]) if self._model == "DIMENSIONAL" else []
        # When they happened, their ids and amounts; of one line at a time.
        self._each: list[tuple[int, bytes, Fraction]] | None = (
            [] if depends_on_events(price) else None
        )
        self._all = Tally()
        self._parts = [Tally() for _ in range(len(self._prices) + 1)]

    def add(self, events: Iterable[StoredEvent]) -> None:
        """Count more events."""
        for stored in events:
            event = UsageEvent(
                event_id=bytes.fromhex(stored.event_id.removeprefix(ID_PREFIX)),
                amount=stored.amount,
                time_unix_micros=stored.time.ToMicroseconds(),
                metadata_json=stored.metadata_json,
            )
            self._all.add(event, self._metric.unique_by)
            if self._each is not None:
                amount = Fraction(event.amount)
                self._each.append((event.time_unix_micros, event.event_id, amount))
            if self._prices:
                self._parts[self._part_of(event)].add(event, self._metric.unique_by)

    @property
    def events(self) -> int:
        """How many there were."""
        return self._all.count

    def used(self) -> Used:
        """What they come to."""
        if self._model == "PERCENTAGE":
            events = tuple(amount for _, _, amount in sorted(self._each or ()))
            return Used(self._all.total, self._all.count, events=events)
        if self._model == "DIMENSIONAL":
            tallies = self._parts if self._prices else [self._all]
            parts = tuple(self._figure(tally) for tally in tallies)
            return Used(sum(parts, Fraction(0)), self._all.count, parts)
        return Used(self._figure(self._all), self._all.count)

    def _figure(self, tally: Tally) -> Fraction:
        return tally.figure(self._metric.aggregation) if tally.count else Fraction(0)

    def _part_of(self, event: UsageEvent) -> int:
        for number, price in enumerate(self._prices):
            if all(self._fits(event, *pair) for pair in price["match"].items()):
                return number
        return len(self._prices)

    def _fits(self, event: UsageEvent, name: str, value: str) -> bool:
        """A price by what is no dimension of the metric fits nothing."""
        return name in self._metric.dimensions and text_of(event.metadata_json, name) == value
