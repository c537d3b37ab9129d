"""Between proto and domain on the hot path: events in, receipts out."""

import os
from collections.abc import Iterable

from usageflow.ingest.v1 import ingest_pb2 as pb

from services.ingest.domain import Event, Outcome, Outcomes, Status, Tenant
from services.kit.errors import FieldProblem
from services.kit.events import (
    EVENT_ID_BYTES,
    MICROS_PER_SECOND,
    canonical_amount,
    check_event,
    event_ids,
)

# About what an event takes in memory, metadata aside.
EVENT_BYTES = 512
_NANOS_PER_MICRO = 1_000


class Intake:
    """The events of one call, checked: valid ones, and why the others are not."""

    def __init__(self, now_micros: int) -> None:
        self._now_micros = now_micros
        self.events: list[Event] = []
        self.rejected: dict[int, list[FieldProblem]] = {}
        self.size_bytes = 0

    @property
    def count(self) -> int:
        """How many events the call has."""
        return len(self.events) + len(self.rejected)

    def read(self, tenant: Tenant, inputs: Iterable[pb.EventInput]) -> None:
        """Add a tenant's events, in order."""
        id_of = event_ids(tenant.organization, tenant.mode)
        now = self._now_micros
        for position, item in enumerate(inputs, self.count):
            metric, amount, customer = item.metric, item.amount, item.customer_id
            metadata, key = item.metadata_json, item.idempotency_key
            time = _micros(item) if item.HasField("time") else None
            problems = check_event(metric, amount, customer, time, metadata, key, now)
            if problems:
                self.rejected[position] = problems
                continue
            self.size_bytes += EVENT_BYTES + len(metadata)
            self.events.append(
                Event(
                    id_of(key.encode()) if key else os.urandom(EVENT_ID_BYTES),
                    tenant,
                    metric,
                    canonical_amount(amount),
                    customer,
                    now if time is None else time,
                    time is not None,
                    metadata,
                )
            )

    def receipts(self, outcomes: Outcomes) -> list[pb.EventReceipt]:
        """A receipt for each event of the call, in order."""
        stored = [
            pb.EventReceipt(status=pb.RECEIPT_STATUS_ACCEPTED, event_id=_id_text(event))
            for event in self.events
        ]
        for at, outcome in outcomes.items():
            stored[at] = _receipt(outcome, _id_text(self.events[at]))
        for position in sorted(self.rejected):
            outcome = Outcome(Status.REJECTED, tuple(self.rejected[position]))
            stored.insert(position, _receipt(outcome, ""))
        return stored


def _micros(item: pb.EventInput) -> int:
    return item.time.seconds * MICROS_PER_SECOND + item.time.nanos // _NANOS_PER_MICRO


def _id_text(event: Event) -> str:
    return "evt_" + event.event_id.hex()


def _receipt(outcome: Outcome, event_id: str) -> pb.EventReceipt:
    return pb.EventReceipt(
        status=outcome.status.value,  # type: ignore[arg-type] # the proto's number
        event_id=event_id,
        errors=[pb.FieldError(field=p.field, message=p.message) for p in outcome.problems],
    )
