from typing import Any, cast

import pytest
from msgspec.structs import replace

from benchmarks.errors import BenchmarkError
from benchmarks.generators.http import refusal
from benchmarks.loads import finish_load, together
from benchmarks.messages import OVERLOADED_GRPC, OVERLOADED_HTTP, GrpcLoad, LoadResult

LOAD = GrpcLoad(
    address="",
    api_key="uf_test_key",
    metric="API_CALL",
    events_per_request=500,
    in_flight=4,
    warm_up_s=0,
    measure_s=1,
)
RESULT = LoadResult(
    requests_per_s=10,
    events_per_s=5_000,
    p50_ms=1,
    p99_ms=2,
    requests=12,
    accepted=6_000,
    duplicates=0,
    refused={},
    refused_p99_ms=0,
    unsent=0,
    timeline=[],
    generator_cpu=0.1,
)


class Ended:
    """A generator that has this result."""

    def __init__(self, result: LoadResult) -> None:
        self._result = result

    def result(self, _kind: type[LoadResult]) -> LoadResult:
        return self._result


def finish(load: GrpcLoad, **changes: Any) -> LoadResult:
    return finish_load(cast(Any, Ended(replace(RESULT, **changes))), load)


def test_every_request_of_a_usual_load_has_to_be_taken() -> None:
    assert finish(LOAD).accepted == 6_000
    with pytest.raises(BenchmarkError, match="refused"):
        finish(LOAD, refused={OVERLOADED_GRPC: 1})
    with pytest.raises(BenchmarkError, match="500 events were taken as known"):
        finish(LOAD, duplicates=500)


def test_an_overload_may_be_refused_as_such_and_not_otherwise() -> None:
    overload = replace(LOAD, overload=True)
    assert finish(overload, refused={OVERLOADED_GRPC: 7}).refused == {OVERLOADED_GRPC: 7}
    with pytest.raises(BenchmarkError, match="INTERNAL"):
        finish(overload, refused={OVERLOADED_GRPC: 7, "INTERNAL: oops": 1})


def test_a_refusal_says_when_to_come_back_or_is_none() -> None:
    assert refusal(b"HTTP/1.1 503 x\r\nRetry-After: 1\r\n\r\n{}") == OVERLOADED_HTTP
    assert refusal(b"HTTP/1.1 503 x\r\n\r\n{}") == "503 {}"
    assert refusal(b'HTTP/1.1 400 x\r\n\r\n{"error"}') == '400 {"error"}'


def test_loads_that_ran_at_once_are_one() -> None:
    both = together([RESULT, replace(RESULT, p99_ms=9, refused={"503": 2}, unsent=1)])
    assert (both.events_per_s, both.requests, both.accepted) == (10_000, 24, 12_000)
    assert (both.p99_ms, both.refused, both.unsent) == (9, {"503": 2}, 1)
