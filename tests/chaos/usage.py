"""What the load consists of: events of several tenants, drawn from a seed.

Nothing here waits or does I/O. Which event is sent again, and how often, also depends on which
were answered, so a run is repeated by its seed as far as scheduling allows.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import count
from typing import NamedTuple

METRICS = ("API_CALL", "AI_TOKEN", "storage.gb-hours", "PAYOUT")
CUSTOMERS = tuple(f"customer_{number}" for number in range(30))
# Of the 35 days that are allowed; the rest is for a campaign and its retries.
BACK_DAYS_MAX = 34
REMEMBERED_MAX = 20_000
RECENT_MAX = 200


class Answer(StrEnum):
    """What became of an event, as its sender was told."""

    ACCEPTED = "ACCEPTED"
    DUPLICATE = "DUPLICATE"
    CONFLICT = "CONFLICT"
    REJECTED = "REJECTED"
    # No answer, or one that says "try again".
    UNKNOWN = "UNKNOWN"


ACKNOWLEDGED = frozenset({Answer.ACCEPTED, Answer.DUPLICATE})


class Receipt(NamedTuple):
    """An answer, and the id that the event has, or that the one stored before has."""

    answer: Answer
    event_id: str = ""


NO_RECEIPT = Receipt(Answer.UNKNOWN)


class VoidAnswer(StrEnum):
    """What became of an event that was to be voided."""

    VOIDED = "VOIDED"
    ALREADY_VOIDED = "ALREADY_VOIDED"
    NOT_FOUND = "NOT_FOUND"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Tenant:
    """An organization in one mode, and a key that may do everything there."""

    organization_id: str
    mode: str  # "live" or "test"
    api_key: str

    @property
    def name(self) -> str:
        """For people and for the journal."""
        return f"{self.organization_id}/{self.mode}"


@dataclass(frozen=True, slots=True)
class Event:
    """An event as its sender means it. Empty `key`: none; `time` None: when it arrives."""

    tenant: str
    key: str
    metric: str
    amount: str
    customer: str
    time: datetime | None


class Memory:
    """What was sent, so that it can be sent again; all senders share it."""

    def __init__(self) -> None:
        # Of any age: what comes in late replaces something at random.
        self.acknowledged: list[Event] = []
        # Perhaps on its way just now.
        self.recent: list[Event] = []

    def sent(self, event: Event, rng: random.Random) -> None:
        """Note that an event with a key is being sent."""
        _remember(self.recent, event, RECENT_MAX, rng)

    def accepted(self, event: Event, rng: random.Random) -> None:
        """Note that an event with a key was accepted."""
        _remember(self.acknowledged, event, REMEMBERED_MAX, rng)


def _remember(events: list[Event], event: Event, size_max: int, rng: random.Random) -> None:
    if len(events) < size_max:
        events.append(event)
    else:
        events[rng.randrange(size_max)] = event


class Source:
    """An endless supply of events for one sender."""

    def __init__(
        self, seed: str, tenants: list[str], memory: Memory, *, began: datetime | None = None
    ) -> None:
        """`seed` is this sender's own; `began` is what late timestamps are reckoned from."""
        self.rng = random.Random(seed)
        self._name = seed
        self._tenants = tenants
        self._memory = memory
        self._began = began or datetime.now(UTC)
        self._numbers = count()
        # What becomes of a draw, and how often.
        self._draws: list[tuple[Callable[[str], Event], int]] = [
            (self._new, 82),
            (self._keyless, 5),
            (self._duplicate, 6),
            (self._conflict, 4),
            (self._twin, 3),
        ]

    def parcel(self, events: int) -> list[Event]:
        """Events of one tenant, to be sent together."""
        tenant = self.rng.choice(self._tenants)
        draws, weights = zip(*self._draws, strict=True)
        parcel: list[Event] = []
        while len(parcel) < events:
            draw = self.rng.choices(draws, weights)[0]
            parcel.append(draw(tenant))
            if events > 1 and self.rng.random() < 0.03:
                parcel.append(self._copy(self.rng.choice(parcel)))
        return parcel[:events]

    def _new(self, tenant: str) -> Event:
        return Event(
            tenant=tenant,
            key=f"{self._name}/{next(self._numbers)}",
            metric=self.rng.choice(METRICS),
            amount=self._amount(),
            customer=self.rng.choice(("", *CUSTOMERS)),
            time=self._time(),
        )

    def _keyless(self, tenant: str) -> Event:
        return replace(self._new(tenant), key="")

    def _duplicate(self, tenant: str) -> Event:
        return self._earlier(tenant, self._memory.acknowledged)

    def _twin(self, tenant: str) -> Event:
        """One that somebody else may be sending just now; sometimes with another content."""
        twin = self._earlier(tenant, self._memory.recent)
        return self._changed(twin) if self.rng.random() < 0.3 else twin

    def _conflict(self, tenant: str) -> Event:
        return self._changed(self._earlier(tenant, self._memory.acknowledged))

    def _copy(self, event: Event) -> Event:
        return self._changed(event) if self.rng.random() < 0.3 else event

    def _earlier(self, tenant: str, events: list[Event]) -> Event:
        """One of the tenant's among a few at random; a new one when none of them is."""
        few = self.rng.choices(events, k=8) if events else []
        return next((event for event in few if event.tenant == tenant), None) or self._new(tenant)

    def _changed(self, event: Event) -> Event:
        """The same key with another content; without a key simply another event."""
        match self.rng.randrange(3):
            case 0:
                return replace(event, amount=str(Decimal(event.amount) + 1))
            case 1:
                return replace(event, metric=event.metric + ".other")
            case _:
                return replace(event, customer=event.customer + "_other")

    def _amount(self) -> str:
        rng = self.rng
        match rng.randrange(10):
            case 0:
                return "0"
            case 1:
                return f"0.{rng.randrange(1, 10**11):011}"
            case 2:
                return f"{rng.randrange(10**20)}.{rng.randrange(10**6):06}"
            case 3 | 4:
                return f"{rng.randrange(100)}.{rng.randrange(100):02}"
            case _:
                return str(rng.randrange(1, 1_000))

    def _time(self) -> datetime | None:
        rng = self.rng
        days = rng.choices((0, 1 / 24, 2, BACK_DAYS_MAX), (30, 40, 20, 10))[0]
        if not days:
            return None
        return self._began - timedelta(microseconds=rng.randrange(int(days * 86_400_000_000)))
