"""What ingest knows of an event, and what becomes of one; nothing here waits or does I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

import msgspec

from services.kit.errors import FieldProblem
from services.kit.ids import organization_uuid

EVENTS_PER_CALL_MAX = 10_000


class Tenant(NamedTuple):
    """Whose event it is: the 16 bytes of the organization's UUID, and the mode's proto number."""

    organization: bytes
    mode: int

    @classmethod
    def of(cls, organization_id: str, mode: int) -> "Tenant":
        """From "org_..." and the proto number; InvalidArgumentError for a malformed id."""
        return cls(organization_uuid(organization_id).bytes, mode)

    @property
    def organization_id(self) -> str:
        """ "org_..."."""
        return f"org_{self.organization.hex()}"


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


class Batch(NamedTuple):
    """Events that travel and are applied together."""

    batch_id: UUID
    events: list[Event]


class StoredBatch(NamedTuple):
    """A batch as it was committed, by PostgreSQL's clock."""

    batch: Batch
    accept_time: datetime


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events a list shows; None: no such limit. Half-open in time."""

    customer_id: str | None = None
    metric: str | None = None
    from_time: datetime | None = None
    to_time: datetime | None = None


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an event that was not accepted."""

    status: Status
    problems: tuple[FieldProblem, ...] = ()


# By position among the events of a call; what is not in it was accepted.
Outcomes = Mapping[int, Outcome]

ALL_ACCEPTED: Outcomes = MappingProxyType({})
DUPLICATE = Outcome(Status.DUPLICATE)


class Difference(NamedTuple):
    """How an event differs in content from the one stored before under its id.

    `ordinal` is its position in the group. Metadata is not billable content and may differ.
    """

    ordinal: int
    metric: bool
    amount: bool
    customer: bool
    time: bool


_DIFFERING_FIELDS = ("metric", "amount", "customerId", "timestamp")


def outcome_of(difference: Difference) -> Outcome:
    """DUPLICATE when nothing differs, otherwise CONFLICT that names what does."""
    problems = tuple(
        FieldProblem(field, "differs from the event stored before under this idempotency key")
        for field, differs in zip(_DIFFERING_FIELDS, difference[1:], strict=True)
        if differs
    )
    return Outcome(Status.CONFLICT, problems) if problems else DUPLICATE
