import pytest
from msgspec.structs import replace
from usageflow.ingest.v1.ingest_pb2 import RecordEventsResponse

from benchmarks.floors.grpc_echo import answer
from benchmarks.generators.grpc import accepted_in
from benchmarks.loads import Load, run_load, start_load
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


def test_a_load_begins_when_it_is_started() -> None:
    response = f"HTTP/1.1 200 OK\r\ncontent-length: {len(BODY)}\r\n\r\n{BODY}"
    with serving("benchmarks.floors.echo", EchoFloor(answer=response)) as port:
        with start_load(replace(HTTP, port=port)) as running:
            assert running.ended_within(60.0)
            assert running.result(LoadResult).accepted > 0


def test_the_grpc_generator_loads_the_trivial_server() -> None:
    with serving("benchmarks.floors.grpc_echo", GrpcEchoFloor(receipts=50)) as port:
        check(
            GrpcLoad(
                address=f"127.0.0.1:{port}",
                api_key="uf_test_key",
                metric="API_CALL",
                events_per_request=50,
                in_flight=2,
                warm_up_s=0.0,
                measure_s=1.0,
            ),
            50,
        )


def test_a_trivial_answer_looks_like_a_real_one() -> None:
    assert accepted_in(answer(3)) == 3
    assert RecordEventsResponse.FromString(answer(1)).receipts[0].event_id.startswith("evt_")
