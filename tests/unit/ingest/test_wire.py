"""Events in, receipts out."""

from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.ingest.v1 import ingest_pb2 as pb

from services.ingest.domain import (
    ALL_ACCEPTED,
    DUPLICATE,
    Outcome,
    Outcomes,
    Recorded,
    Status,
    Tenant,
)
from services.ingest.wire import Intake
from services.kit.errors import FieldProblem
from services.kit.events import event_id

NOW = 1_800_000_000_000_000
TENANT = Tenant(bytes(range(16)), 2)


def read(*inputs: pb.EventInput) -> Intake:
    intake = Intake(NOW)
    intake.read(TENANT, inputs)
    return intake


def receipts_of(intake: Intake, outcomes: Outcomes) -> list[pb.EventReceipt]:
    answer = intake.answer(pb.RecordTenantEventsResponse, Recorded(outcomes, "token"))
    assert answer.usage_token == "token"
    return list(answer.receipts)


def good(**fields: str) -> pb.EventInput:
    return pb.EventInput(**({"metric": "API_CALL", "amount": "1"} | fields))  # type: ignore[arg-type]


def test_an_event_is_read_with_everything_it_says() -> None:
    sent = good(amount="007.50", customer_id="c", metadata_json='{"a":1}', idempotency_key="k")
    sent.time.CopyFrom(Timestamp(seconds=NOW // 10**6 - 5, nanos=123_456_789))
    [event] = read(sent).events
    assert event.event_id == event_id(TENANT.organization, 2, b"k")
    assert event.tenant == TENANT
    assert (event.metric, event.amount, event.customer_id) == ("API_CALL", "7.5", "c")
    assert event.time_micros == NOW - 5_000_000 + 123_456
    assert event.time_sent
    assert event.metadata_json == '{"a":1}'


def test_an_event_without_a_time_happens_now() -> None:
    [event] = read(good()).events
    assert event.time_micros == NOW
    assert not event.time_sent


def test_where_test_clocks_run_an_event_without_a_time_happens_at_its_customers() -> None:
    later, latest = NOW + 3 * 10**9, NOW + 9 * 10**9
    sent = good(customer_id="b")
    sent.time.FromMicroseconds(latest + 300 * 10**6)
    beyond = good()
    beyond.time.FromMicroseconds(latest + 301 * 10**6)
    events = [good(customer_id="a"), good(customer_id="b"), good(), sent, beyond]
    for clocks, expected in (
        ({"a": later, "b": latest}, [later, latest, NOW]),
        ({"": latest}, [latest, latest, latest]),
    ):
        intake = Intake(NOW)
        intake.read(TENANT, events, clocks=clocks)
        times = [event.time_micros for event in intake.events]
        assert times == [*expected, latest + 300 * 10**6]
        assert list(intake.rejected) == [4]


def test_events_without_a_key_have_ids_of_their_own() -> None:
    one, other = read(good(), good()).events
    assert one.event_id != other.event_id


def test_a_bad_event_is_rejected_beside_good_neighbours() -> None:
    intake = read(good(), good(amount="-1", metric=""), good())
    assert len(intake.events) == 2
    receipts = receipts_of(intake, ALL_ACCEPTED)
    statuses = [Status(receipt.status) for receipt in receipts]
    assert statuses == [Status.ACCEPTED, Status.REJECTED, Status.ACCEPTED]
    assert [error.field for error in receipts[1].errors] == ["metric", "amount"]
    assert receipts[1].event_id == ""


def test_positions_go_on_from_tenant_to_tenant() -> None:
    intake = Intake(NOW)
    other = Tenant(bytes(16), 1)
    intake.read(TENANT, [good(), good(metric="")])
    intake.read(other, [good(metric=""), good()])
    assert sorted(intake.rejected) == [1, 2]
    assert [event.tenant for event in intake.events] == [TENANT, other]
    assert intake.count == 4


def test_receipts_of_accepted_events_name_them() -> None:
    intake = read(*(good(idempotency_key=str(n)) for n in range(3)))
    receipts = receipts_of(intake, ALL_ACCEPTED)
    assert list(receipts) == [
        pb.EventReceipt(status=pb.RECEIPT_STATUS_ACCEPTED, event_id=f"evt_{event.event_id.hex()}")
        for event in intake.events
    ]


def test_receipts_of_duplicates_name_them_too() -> None:
    intake = read(*(good(idempotency_key=str(n)) for n in range(3)))
    receipts = receipts_of(intake, {1: DUPLICATE})
    assert [Status(receipt.status) for receipt in receipts] == [
        Status.ACCEPTED,
        Status.DUPLICATE,
        Status.ACCEPTED,
    ]
    assert receipts[1].event_id == f"evt_{intake.events[1].event_id.hex()}"
    assert not receipts[1].errors


def test_receipts_tell_what_was_not_accepted_and_why() -> None:
    conflict = Outcome(Status.CONFLICT, (FieldProblem("amount", "differs"),))
    intake = read(good(metric=""), good(), good(), good())
    receipts = receipts_of(intake, {0: DUPLICATE, 2: conflict})
    assert [receipt.status for receipt in receipts] == [4, 2, 1, 3]
    assert [(e.field, e.message) for e in receipts[3].errors] == [("amount", "differs")]
    assert receipts[3].event_id == f"evt_{intake.events[2].event_id.hex()}"


def test_the_size_of_a_call_counts_its_metadata() -> None:
    plain, heavy = read(good()), read(good(metadata_json='{"a":"' + "x" * 5_000 + '"}'))
    assert heavy.size_bytes - plain.size_bytes > 5_000


def test_the_domain_uses_the_numbers_of_the_proto() -> None:
    assert {f"RECEIPT_STATUS_{status.name}": status.value for status in Status} == {
        name: number for name, number in pb.ReceiptStatus.items() if number
    }
