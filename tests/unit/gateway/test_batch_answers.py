"""The answer to a batch is the same JSON however it was put together."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from usageflow.ingest.v1 import ingest_pb2 as pb

from gateway.batch_answer import BatchAnswer, EventResult, answer

STATUSES = {
    "ACCEPTED": pb.RECEIPT_STATUS_ACCEPTED,
    "DUPLICATE": pb.RECEIPT_STATUS_DUPLICATE,
    "CONFLICT": pb.RECEIPT_STATUS_CONFLICT,
    "REJECTED": pb.RECEIPT_STATUS_REJECTED,
}
CONFLICT = "idempotencyKey: was used for an event with other content; nothing was stored"


def receipt(status: str) -> pb.EventReceipt:
    made = pb.EventReceipt(status=STATUSES[status])
    if status == "REJECTED":
        made.errors.add(field="amount", message='must be a decimal such as "12.5"')
    else:
        made.event_id = f"evt_{status}"
    return made


@given(st.lists(st.sampled_from([*STATUSES, "here"]), min_size=1))
def test_every_event_has_its_own_result(kinds: list[str]) -> None:
    """ "here": refused before it came to ingest."""
    refused = {index: "metric: is required" for index, kind in enumerate(kinds) if kind == "here"}
    receipts = [receipt(kind) for kind in kinds if kind != "here"]
    errors = {
        "CONFLICT": CONFLICT,
        "REJECTED": 'amount: must be a decimal such as "12.5"',
        "here": "metric: is required",
    }
    results = [
        EventResult(
            index,
            "REJECTED" if kind == "here" else kind,  # type: ignore[arg-type]
            None if kind in ("here", "REJECTED") else f"evt_{kind}",
            errors.get(kind),
        )
        for index, kind in enumerate(kinds)
    ]
    expected = BatchAnswer(
        accepted=kinds.count("ACCEPTED"),
        duplicates=kinds.count("DUPLICATE"),
        conflicts=kinds.count("CONFLICT"),
        rejected=kinds.count("REJECTED") + kinds.count("here"),
        results=results,
    )
    assert answer(len(kinds), refused, receipts) == msgspec.json.encode(expected)
