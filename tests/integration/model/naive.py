"""What ingest and aggregator have to do, as plainly as it can be said: lists and Fractions."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from services.ingest.domain import Status
from services.ingest.voids import VoidStatus

KINDS = ("SUM", "COUNT", "MIN", "MAX", "AVG", "LATEST", "UNIQUE_COUNT")
# A void changes these by a subtraction; the others need a recount first.
SUBTRACTABLE = ("SUM", "COUNT", "AVG", "UNIQUE_COUNT")
PAST = timedelta(days=35)
FUTURE = timedelta(minutes=5)
AVERAGE_DIGITS = 12


@dataclass(frozen=True)
class Sent:
    """An event as a caller sends it; `key` "": without one, `time` None: not said."""

    key: str
    metric: str
    amount: str
    customer_id: str
    time: datetime | None


@dataclass(frozen=True)
class Stored:
    """An event as it was accepted."""

    event_id: bytes
    sent: Sent
    time: datetime


@dataclass(frozen=True)
class Asked:
    """A question about usage in [start, end), by windows of the width that is named."""

    metric: str
    start: datetime
    end: datetime
    window: str = "TOTAL"
    customer_id: str | None = None
    by_customer: bool = False


Rows = dict[tuple[datetime, str], Fraction]


class Model:
    """One tenant's events. `now` is when everything arrives."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.stored: list[Stored] = []
        self.void: set[bytes] = set()

    def expected(self, sent: Sent, before: Sequence[Stored] = ()) -> Status:
        """What becomes of an event that arrives now, after `before` in the same call."""
        if sent.time is not None and not (self.now - PAST <= sent.time <= self.now + FUTURE):
            return Status.REJECTED
        known = [each for each in (*self.stored, *before) if sent.key and each.sent.key == sent.key]
        if not known:
            return Status.ACCEPTED
        return Status.DUPLICATE if _is_same(known[0], sent) else Status.CONFLICT

    def call(self, events: Sequence[Sent]) -> list[Status]:
        """What becomes of the events of one call, one after the other; nothing is stored."""
        statuses: list[Status] = []
        before: list[Stored] = []
        for sent in events:
            statuses.append(self.expected(sent, before))
            if statuses[-1] == Status.ACCEPTED:
                before.append(Stored(b"", sent, sent.time or self.now))
        return statuses

    def accept(self, event_id: bytes, sent: Sent) -> None:
        """Store an event."""
        self.stored.append(Stored(event_id, sent, sent.time or self.now))

    def take_back(self, event_id: bytes) -> VoidStatus:
        """Void an event."""
        if all(each.event_id != event_id for each in self.stored):
            return VoidStatus.NOT_FOUND
        if event_id in self.void:
            return VoidStatus.ALREADY_VOIDED
        self.void.add(event_id)
        return VoidStatus.VOIDED

    def usage(self, asked: Asked, counted: Collection[bytes]) -> Rows:
        """The figure of each window and group in which anything was `counted`."""
        groups: dict[tuple[datetime, str], list[Stored]] = {}
        for each in self.stored:
            if each.event_id in counted and _is_asked(each, asked):
                group = each.sent.customer_id if asked.by_customer else ""
                groups.setdefault((_start(each.time, asked), group), []).append(each)
        return {group: FIGURES[asked.metric](members) for group, members in groups.items()}


def nothing(asked: Asked) -> Rows:
    """The one row of a question about everything when there is nothing."""
    return {(asked.start, ""): Fraction(0)}


def _is_same(stored: Stored, sent: Sent) -> bool:
    """Whether it is billed alike; a retry that does not say when may have been at any time."""
    same = replace(sent, amount=stored.sent.amount, time=stored.sent.time) == stored.sent
    alike = Fraction(sent.amount) == Fraction(stored.sent.amount)
    return same and alike and sent.time in (None, stored.time)


def _is_asked(each: Stored, asked: Asked) -> bool:
    return (
        each.sent.metric == asked.metric
        and asked.start <= each.time < asked.end
        and asked.customer_id in (None, each.sent.customer_id)
    )


def _start(time: datetime, asked: Asked) -> datetime:
    """When the window of a time begins; those at the edge are cut off."""
    start = {
        "TOTAL": asked.start,
        "DAY": datetime(time.year, time.month, time.day, tzinfo=UTC),
        "HOUR": datetime(time.year, time.month, time.day, time.hour, tzinfo=UTC),
    }[asked.window]
    return max(start, asked.start)


def _amounts(members: Sequence[Stored]) -> list[Fraction]:
    return [Fraction(each.sent.amount) for each in members]


def _average(members: Sequence[Stored]) -> Fraction:
    """Half up to AVERAGE_DIGITS digits."""
    average = sum(_amounts(members), Fraction(0)) / len(members)
    return Fraction(int(average * 10**AVERAGE_DIGITS + Fraction(1, 2)), 10**AVERAGE_DIGITS)


def _latest(members: Sequence[Stored]) -> Fraction:
    return Fraction(max(members, key=lambda each: (each.time, each.event_id)).sent.amount)


FIGURES: dict[str, Callable[[Sequence[Stored]], Fraction]] = {
    "SUM": lambda members: sum(_amounts(members), Fraction(0)),
    "COUNT": lambda members: Fraction(len(members)),
    "MIN": lambda members: min(_amounts(members)),
    "MAX": lambda members: max(_amounts(members)),
    "AVG": _average,
    "LATEST": _latest,
    # World gives every event a property that names its amount.
    "UNIQUE_COUNT": lambda members: Fraction(len(set(_amounts(members)))),
}
