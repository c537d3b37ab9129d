import json

from usageflow.ingest.v1.ingest_pb2 import RecordEventsRequest

from benchmarks.generators.requests import (
    CUSTOMERS,
    Requests,
    grpc_templates,
    http_templates,
    idempotency_key,
)
from benchmarks.messages import HttpLoad, Shape

RUN = "0123456789abcdef"


def load_of(shape: Shape, events_per_request: int) -> HttpLoad:
    return HttpLoad(
        host="127.0.0.1",
        port=8080,
        path="/api/track",
        api_key="uf_test_key",
        metric="API_CALL",
        shape=shape,
        events_per_request=events_per_request,
        connections=1,
        warm_up_s=0,
        measure_s=1,
    )


def split(request: bytes) -> tuple[dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines), body


def test_single_requests_are_whole_and_have_a_key_each() -> None:
    templates = http_templates(load_of("single", 1))
    requests = Requests(templates, RUN)
    taken = [split(requests.take()) for _ in range(CUSTOMERS + 1)]
    keys = [headers["Idempotency-Key"] for headers, _ in taken]
    assert len(set(keys)) == CUSTOMERS + 1
    assert all(key.startswith(RUN) and len(key) == 32 for key in keys)
    assert all(int(headers["Content-Length"]) == len(body) for headers, body in taken)
    assert {json.loads(body)["customerId"] for _, body in taken} == {
        f"user_{number:04d}" for number in range(CUSTOMERS)
    }


def test_known_requests_come_again_and_again() -> None:
    templates = http_templates(load_of("single", 1))
    first = Requests(templates, RUN)
    sent = [first.take() for _ in range(3)]
    again = Requests(templates, RUN, known=3)
    assert [again.take() for _ in range(7)] == [*sent, *sent, sent[0]]
    assert again.count == 7


def test_requests_of_no_particular_run_are_those_of_no_other() -> None:
    templates = http_templates(load_of("single", 1))
    assert Requests(templates).take() != Requests(templates).take()


def test_events_of_batches_have_a_key_each() -> None:
    requests = Requests(http_templates(load_of("batch", 100)), RUN)
    events = []
    for _ in range(12):
        headers, body = split(requests.take())
        assert int(headers["Content-Length"]) == len(body)
        events += json.loads(body)["events"]
    assert len({event["idempotencyKey"] for event in events}) == 1_200
    assert len({event["customerId"] for event in events}) == CUSTOMERS


def test_ndjson_is_one_event_a_line() -> None:
    requests = Requests(http_templates(load_of("ndjson", 1_000)), RUN)
    headers, body = split(requests.take())
    assert headers["Content-Type"] == "application/x-ndjson"
    assert len({json.loads(line)["idempotencyKey"] for line in body.splitlines()}) == 1_000


def test_grpc_requests_stay_valid_when_their_keys_are_replaced() -> None:
    requests = Requests(grpc_templates("API_CALL", 500), RUN)
    first, second = (RecordEventsRequest.FromString(requests.take()) for _ in range(2))
    keys = [event.idempotency_key for request in (first, second) for event in request.events]
    assert len(set(keys)) == 1_000
    assert {len(key) for key in keys} == {37}
    assert first.events[0].amount == "1"
    assert first.events[0].customer_id != second.events[0].customer_id


def test_the_key_of_an_event_follows_from_its_place() -> None:
    requests = Requests(grpc_templates("M", 10), RUN)
    requests.take()
    events = RecordEventsRequest.FromString(requests.take()).events
    assert events[3].idempotency_key == idempotency_key(RUN, 1, 3)
