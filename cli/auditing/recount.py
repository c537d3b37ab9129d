"""Usage counted plainly from raw events: lists, sets and Fractions. Pure.

It shares no code with the service that it checks: no buckets, no SQL, no Decimal.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from usageflow.events.v1.events_pb2 import UsageEvent

AVERAGE_DIGITS = 12
# Percentiles are told of amounts with so many digits.
AMOUNT_DIGITS = 3
# Under it stand values that came when a dimension was full.
OVERFLOW = "__other__"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR_MICROS = 3_600_000_000


@dataclass(slots=True)
class Tally:
    """What is known of some events."""

    count: int = 0
    total: Fraction = Fraction(0)
    smallest: Fraction | None = None
    largest: Fraction | None = None
    # (time, event id) of the event that happened last, and its amount.
    last: tuple[int, bytes] | None = None
    last_amount: Fraction = Fraction(0)
    values: set[str] = field(default_factory=set)

    def add(self, event: UsageEvent, unique_by: str) -> None:
        """Count one more event."""
        amount = Fraction(event.amount)
        self.count += 1
        self.total += amount
        self.smallest = amount if self.smallest is None else min(self.smallest, amount)
        self.largest = amount if self.largest is None else max(self.largest, amount)
        when = (event.time_unix_micros, event.event_id)
        if self.last is None or when > self.last:
            self.last, self.last_amount = when, amount
        if unique_by and (value := text_of(event.metadata_json, unique_by)):
            self.values.add(value)

    def figure(self, aggregation: str) -> Fraction:
        """The figure of at least one event. KeyError: an aggregation that nobody knows here."""
        average = self.total / self.count * 10**AVERAGE_DIGITS
        return {
            "SUM": self.total,
            "COUNT": Fraction(self.count),
            "MAX": self.largest or Fraction(0),
            "MIN": self.smallest or Fraction(0),
            # Half up.
            "AVG": Fraction((average + Fraction(1, 2)).__floor__(), 10**AVERAGE_DIGITS),
            "LATEST": self.last_amount,
            "UNIQUE_COUNT": Fraction(len(self.values)),
        }[aggregation]


# Start of an hour, and a customer ("": none).
HourOf = tuple[datetime, str]


@dataclass(slots=True)
class Recount:
    """The events of one metric by hour and customer, by customer alone, by values of dimensions."""

    unique_by: str = ""
    dimensions: tuple[str, ...] = ()
    by_hour: dict[HourOf, Tally] = field(default_factory=dict)
    by_customer: dict[str, Tally] = field(default_factory=dict)
    # By values of the dimensions; none without dimensions.
    by_group: dict[tuple[str, ...], Tally] = field(default_factory=dict)
    # How many events have which rounded amount.
    amounts: Counter[Fraction] = field(default_factory=Counter)
    events: int = 0

    def add(self, events: Iterable[UsageEvent]) -> None:
        """Count more events."""
        for event in events:
            self.events += 1
            customer_id = event.customer_id
            hour = self.by_hour.setdefault((hour_of(event), customer_id), Tally())
            hour.add(event, self.unique_by)
            self.by_customer.setdefault(customer_id, Tally()).add(event, self.unique_by)
            self.amounts[rounded(Fraction(event.amount))] += 1
            if self.dimensions:
                group = tuple(text_of(event.metadata_json, name) for name in self.dimensions)
                self.by_group.setdefault(group, Tally()).add(event, self.unique_by)

    def percentile(self, percent: int) -> Fraction:
        """The smallest rounded amount that so many of 100 events do not exceed (nearest rank)."""
        rank = -(-self.events * percent // 100)
        for amount in sorted(self.amounts):
            rank -= self.amounts[amount]
            if rank <= 0:
                return amount
        raise ValueError("there are no events")

    def groups(self, told: Collection[tuple[str, ...]]) -> Mapping[tuple[str, ...], Tally]:
        """By values as they are told: which ones a full dimension knows only aggregator can say."""
        known = [set(values) for values in zip(*told, strict=True)]
        if not any(OVERFLOW in values for values in known):
            return self.by_group
        found: dict[tuple[str, ...], Tally] = {}
        for group, tally in self.by_group.items():
            shown = tuple(
                OVERFLOW if OVERFLOW in values and value not in values else value
                for value, values in zip(group, known, strict=True)
            )
            merge(found.setdefault(shown, Tally()), tally)
        return found


def rounded(amount: Fraction) -> Fraction:
    """Half up to AMOUNT_DIGITS digits."""
    if amount == 0:
        return amount
    unit = Fraction(1)
    while amount / unit >= 10**AMOUNT_DIGITS:
        unit *= 10
    while amount / unit < 10 ** (AMOUNT_DIGITS - 1):
        unit /= 10
    return (amount / unit + Fraction(1, 2)).__floor__() * unit


def merge(whole: Tally, part: Tally) -> None:
    """Add what is known of other events."""
    if whole.count == 0:
        whole.smallest, whole.largest = part.smallest, part.largest
    elif part.smallest is not None and part.largest is not None:
        assert whole.smallest is not None
        assert whole.largest is not None
        whole.smallest = min(whole.smallest, part.smallest)
        whole.largest = max(whole.largest, part.largest)
    whole.count += part.count
    whole.total += part.total
    if whole.last is None or (part.last is not None and part.last > whole.last):
        whole.last, whole.last_amount = part.last, part.last_amount
    whole.values |= part.values


def hour_of(event: UsageEvent) -> datetime:
    """Start of the hour of UTC in which it happened."""
    micros = event.time_unix_micros
    return _EPOCH + timedelta(microseconds=micros - micros % _HOUR_MICROS)


def text_of(metadata_json: str, name: str) -> str:
    """A property as it is counted: numbers as they were sent; "" when it is missing or null."""
    found = json.loads(metadata_json, parse_int=str, parse_float=str) if metadata_json else {}
    value = found.get(name)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).replace("\0", "\N{REPLACEMENT CHARACTER}")
