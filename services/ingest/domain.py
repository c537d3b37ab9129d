"""What ingest knows of an event, and what becomes of one; nothing here waits or does I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

import msgspec

from services.kit import faults
from services.kit.errors import FieldProblem
from services.kit.ids import organization_uuid

EVENTS_PER_CALL_MAX = 10_000
TENANTS_REMEMBERED_MAX = 4_096


class Tenant(NamedTuple):
    """Whose event it is: the 16 bytes of the organization's UUID, and the mode's proto number."""

    organization: bytes
    mode: int

    @classmethod
    def of(cls, organization_id: str, mode: int) -> "Tenant":
        """From "org_..." and the proto number; InvalidArgumentError for a malformed id.

        The same object each time, for those that were asked for lately.
        """
        return _remembered_tenant(organization_id, mode)

    @property
    def organization_id(self) -> str:
        """ "org_..."."""
        return f"org_{self.organization.hex()}"


@lru_cache(TENANTS_REMEMBERED_MAX)
def _remembered_tenant(organization_id: str, mode: int) -> Tenant:
    return Tenant(organization_uuid(organization_id).bytes, mode)


class Event(msgspec.Struct, frozen=True, gc=False):
    """A valid event. A msgspec.Struct is made five times as fast as a dataclass.

    `amount` is canonical (kit.events.canonical_amount). Empty `customer_id` and `metadata_json`:
    none. `time_sent`: the caller said when it happened; otherwise it happened on arrival.
    """

    event_id: bytes
    tenant: Tenant
    metric: str
    amount: str
    customer_id: str
    time_micros: int
    time_sent: bool
    metadata_json: str


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it was accepted."""

    event_id: bytes
    metric: str
    amount: str
    customer_id: str
    event_time: datetime
    metadata_json: str
    accept_time: datetime
    void_time: datetime | None = None
    void_reason: str = ""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events a list shows; None: no such limit. Half-open in time.

    `idempotency_key`: only the event that was sent with it.
    """

    customer_id: str | None = None
    metric: str | None = None
    from_time: datetime | None = None
    to_time: datetime | None = None
    idempotency_key: str | None = None

    def has(self, event: StoredEvent) -> bool:
        """Whether the list shows this event, its key aside."""
        return (
            self.customer_id in (None, event.customer_id)
            and self.metric in (None, event.metric)
            and (self.from_time is None or event.event_time >= self.from_time)
            and (self.to_time is None or event.event_time < self.to_time)
        )


class EventPosition(NamedTuple):
    """Where a list goes on: after this event, newest first."""

    event_time: datetime
    event_id: bytes


class Status(IntEnum):
    """What became of an event; the numbers are those of the proto's ReceiptStatus."""

    ACCEPTED = 1
    DUPLICATE = 2
    CONFLICT = 3
    REJECTED = 4
    UNAVAILABLE = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an event that was not accepted."""

    status: Status
    problems: tuple[FieldProblem, ...] = ()


# By position among the events of a call; what is not in it was accepted.
Outcomes = Mapping[int, Outcome]

ALL_ACCEPTED: Outcomes = MappingProxyType({})


class Recorded(NamedTuple):
    """What became of a call's events, and the token for usage queries that must count them."""

    outcomes: Outcomes
    usage_token: str


NOTHING_RECORDED = Recorded(ALL_ACCEPTED, "")
DUPLICATE = Outcome(Status.DUPLICATE)


class StoredContent(NamedTuple):
    """What an event that was stored before has of billable content. Metadata is none."""

    event_id: bytes
    batch_id: UUID | None
    metric: str
    amount: str
    customer_id: str
    time_micros: int

    @classmethod
    def of(cls, event: Event) -> "StoredContent":
        """What will be stored of an event that is on its way."""
        return cls(
            event.event_id, None, event.metric, event.amount, event.customer_id, event.time_micros
        )


def outcome_of(event: Event, stored: StoredContent) -> Outcome:
    """DUPLICATE when what is stored under the event's key is the same, otherwise CONFLICT that
    names what differs. Amounts are canonical: the same number is the same text.
    """
    if faults.seeded(faults.Fault.IGNORED_CONFLICT) or (
        event.metric == stored.metric
        and event.amount == stored.amount
        and event.customer_id == stored.customer_id
        and (not event.time_sent or event.time_micros == stored.time_micros)
    ):
        return DUPLICATE
    differing = {
        "metric": event.metric != stored.metric,
        "amount": event.amount != stored.amount,
        "customerId": event.customer_id != stored.customer_id,
        "timestamp": event.time_sent and event.time_micros != stored.time_micros,
    }
    problems = tuple(
        FieldProblem(field, "differs from the event stored before under this idempotency key")
        for field, differs in differing.items()
        if differs
    )
    return Outcome(Status.CONFLICT, problems)
