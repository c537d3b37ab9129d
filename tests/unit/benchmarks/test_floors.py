import pytest
from msgspec.structs import replace
from usageflow.ingest.v1.ingest_pb2 import RecordEventsResponse

from benchmarks.errors import BenchmarkError
from benchmarks.floors.grpc_echo import answer
from benchmarks.generators.grpc import receipts_in
from benchmarks.loads import Load, limited, run_load, start_load
from benchmarks.messages import AsgiFloor, EchoFloor, GrpcEchoFloor, GrpcLoad, HttpLoad, LoadResult
from benchmarks.processes import serving

BODY = '{"success":true,"eventId":"evt_0"}'
HEADERS = [("content-type", "application/json"), ("content-length", str(len(BODY)))]
HTTP = HttpLoad(
    host="127.0.0.1",
    port=1,
    path="/api/track",
    api_key="uf_test_key",
    metric="API_CALL",
    connections=4,
    warm_up_s=0.0,
    measure_s=1.0,
)


GRPC = GrpcLoad(
    address="",
    api_key="uf_test_key",
    metric="API_CALL",
    events_per_request=50,
    in_flight=2,
    warm_up_s=0.0,
    measure_s=1.0,
)


def check(load: Load, events_per_request: int) -> None:
    result = run_load(load)
    assert result.requests_per_s > 0
    assert result.events_per_s == pytest.approx(result.requests_per_s * events_per_request)
    assert result.accepted >= round(result.events_per_s * load.measure_s)
    assert result.refused == {}


def test_the_http_generator_loads_the_no_op_handler() -> None:
    with serving("benchmarks.floors.asgi", AsgiFloor(headers=HEADERS, body=BODY)) as port:
        check(replace(HTTP, port=port), 1)


def test_the_http_generator_keeps_to_a_schedule() -> None:
    response = f"HTTP/1.1 200 OK\r\ncontent-length: {len(BODY)}\r\n\r\n{BODY}"
    with serving("benchmarks.floors.echo", EchoFloor(answer=response)) as port:
        result = run_load(replace(HTTP, port=port, rate_per_s=100.0, measure_s=0.5))
    assert 0 < result.accepted <= 51


def test_a_limited_load_counts_all_of_its_requests() -> None:
    """However soon they are done: its figures are those of no time for warming up."""
    with serving("benchmarks.floors.grpc_echo", GrpcEchoFloor(receipts=50)) as port:
        load = replace(GRPC, address=f"127.0.0.1:{port}", warm_up_s=30.0)
        result = run_load(limited(load, 7))
    assert (result.requests, result.accepted) == (7, 350)
    assert result.requests_per_s > 0


def test_a_load_begins_when_it_is_started() -> None:
    response = f"HTTP/1.1 200 OK\r\ncontent-length: {len(BODY)}\r\n\r\n{BODY}"
    with serving("benchmarks.floors.echo", EchoFloor(answer=response)) as port:
        with start_load(replace(HTTP, port=port)) as running:
            assert running.ended_within(60.0)
            assert running.result(LoadResult).accepted > 0


def test_a_load_ends_after_as_many_requests_as_it_may_send() -> None:
    response = f"HTTP/1.1 200 OK\r\ncontent-length: {len(BODY)}\r\n\r\n{BODY}"
    with serving("benchmarks.floors.echo", EchoFloor(answer=response)) as port:
        result = run_load(replace(HTTP, port=port, requests_max=30, measure_s=60.0))
    assert (result.requests, result.accepted) == (30, 30)


def test_known_events_that_are_taken_as_new_fail_the_load() -> None:
    response = f"HTTP/1.1 200 OK\r\ncontent-length: {len(BODY)}\r\n\r\n{BODY}"
    with serving("benchmarks.floors.echo", EchoFloor(answer=response)) as port:
        with pytest.raises(BenchmarkError, match="taken as new"):
            run_load(replace(HTTP, port=port, known_requests=10))


def test_known_events_are_told_by_the_header_of_a_replay() -> None:
    head = f"content-length: {len(BODY)}\r\nidempotent-replayed: true"
    with serving(
        "benchmarks.floors.echo", EchoFloor(answer=f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n{BODY}")
    ) as port:
        result = run_load(replace(HTTP, port=port, known_requests=10))
    assert (result.accepted, result.duplicates) == (0, result.requests)


def test_what_an_overload_can_not_send_is_counted_and_dropped() -> None:
    response = f"HTTP/1.1 200 OK\r\ncontent-length: {len(BODY)}\r\n\r\n{BODY}"
    with serving("benchmarks.floors.echo", EchoFloor(answer=response)) as port:
        load = replace(HTTP, port=port, rate_per_s=100_000.0, measure_s=0.5, overload=True)
        assert run_load(load).unsent > 0


def test_the_grpc_generator_loads_the_trivial_server() -> None:
    with serving("benchmarks.floors.grpc_echo", GrpcEchoFloor(receipts=50)) as port:
        load = replace(GRPC, address=f"127.0.0.1:{port}")
        check(load, 50)
        assert run_load(replace(load, requests_max=7)).accepted == 350
        assert 0 < run_load(replace(load, in_flight=100, rate_per_s=50.0)).requests <= 51


def test_a_trivial_answer_looks_like_a_real_one() -> None:
    assert receipts_in(answer(3)) == (3, 0)
    assert RecordEventsResponse.FromString(answer(1)).receipts[0].event_id.startswith("evt_")
