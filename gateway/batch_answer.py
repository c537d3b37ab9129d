"""The answer to a batch: what became of each event, as JSON."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
from usageflow.ingest.v1.ingest_pb2 import (
    RECEIPT_STATUS_ACCEPTED,
    RECEIPT_STATUS_CONFLICT,
    RECEIPT_STATUS_DUPLICATE,
    RECEIPT_STATUS_REJECTED,
    RECEIPT_STATUS_UNAVAILABLE,
    EventReceipt,
)

from services.kit.errors import UnavailableError

_Status = Literal["ACCEPTED", "DUPLICATE", "CONFLICT", "REJECTED"]


class EventResult(msgspec.Struct, rename="camel", gc=False):
    """What became of one event of a batch."""

    index: int
    status: _Status
    event_id: str | None = None
    error: str | None = None


class BatchAnswer(msgspec.Struct):
    """What became of all events of a batch."""

    accepted: int
    duplicates: int
    conflicts: int
    rejected: int
    results: list[EventResult]


_encode = msgspec.json.Encoder().encode
_STATUS_NAMES: Final[dict[int, _Status]] = {
    RECEIPT_STATUS_ACCEPTED: "ACCEPTED",
    RECEIPT_STATUS_DUPLICATE: "DUPLICATE",
    RECEIPT_STATUS_CONFLICT: "CONFLICT",
    RECEIPT_STATUS_REJECTED: "REJECTED",
}


def answer(count: int, refused: Mapping[int, str], receipts: Sequence[EventReceipt]) -> bytes:
    """A BatchAnswer for `count` events: those in `refused` (index to reason) never went to
    ingest, `receipts` are the others', in order.
    """
    statuses = [receipt.status for receipt in receipts]
    if RECEIPT_STATUS_UNAVAILABLE in statuses:
        raise UnavailableError("Some events can't be decided now", retry_after_s=1.0)
    accepted = statuses.count(RECEIPT_STATUS_ACCEPTED)
    duplicates = statuses.count(RECEIPT_STATUS_DUPLICATE)
    if accepted + duplicates == count:
        return _all_stored(accepted, duplicates, statuses, receipts)
    others = iter(receipts)
    results = [
        EventResult(index, "REJECTED", None, refused[index])
        if index in refused
        else _result(index, next(others))
        for index in range(count)
    ]
    counts = Counter(result.status for result in results)
    return _encode(
        BatchAnswer(
            accepted=counts["ACCEPTED"],
            duplicates=counts["DUPLICATE"],
            conflicts=counts["CONFLICT"],
            rejected=counts["REJECTED"],
            results=results,
        )
    )


def _all_stored(
    accepted: int, duplicates: int, statuses: Sequence[int], receipts: Sequence[EventReceipt]
) -> bytes:
    """The same bytes for a third of the time. An event id needs no escaping."""
    names = _STATUS_NAMES
    results = ",".join(
        [
            f'{{"index":{index},"status":"{names[status]}","eventId":"{receipt.event_id}",'
            '"error":null}'
            for index, (status, receipt) in enumerate(zip(statuses, receipts, strict=True))
        ]
    )
    counts = f'"accepted":{accepted},"duplicates":{duplicates},"conflicts":0,"rejected":0'
    return f'{{{counts},"results":[{results}]}}'.encode()


def _result(index: int, receipt: EventReceipt) -> EventResult:
    error = None
    if receipt.status == RECEIPT_STATUS_CONFLICT:
        error = "idempotencyKey: was used for an event with other content; nothing was stored"
    elif receipt.errors:
        error = "; ".join(f"{error.field}: {error.message}" for error in receipt.errors)
    return EventResult(index, _STATUS_NAMES[receipt.status], receipt.event_id or None, error)
