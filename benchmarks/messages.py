"""What the benchmark and its processes tell each other: one JSON each, by stdin and stdout."""

from typing import Literal

import msgspec

Shape = Literal["single", "batch", "ndjson"]


class HttpLoad(msgspec.Struct, frozen=True, kw_only=True):
    """A load of POSTs; every connection has one request outstanding.

    `rate_per_s` None: the next request goes out with the answer to the one before. Otherwise
    requests go out on a schedule, and latency counts from the scheduled instant, so that a stalled
    server is charged for all requests that it made wait.
    """

    host: str
    port: int
    path: str
    api_key: str
    metric: str
    shape: Shape = "single"
    events_per_request: int = 1
    connections: int
    rate_per_s: float | None = None
    warm_up_s: float
    measure_s: float


class GrpcLoad(msgspec.Struct, frozen=True, kw_only=True):
    """A load of RecordEvents calls, or of StreamEvents streams, `in_flight` at once.

    A stream has one request unanswered.
    """

    address: str
    api_key: str
    metric: str
    stream: bool = False
    events_per_request: int
    in_flight: int
    warm_up_s: float
    measure_s: float


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a load did. Rates and latencies are of the measured window, without the warm-up.

    `accepted` counts all events that were acknowledged as new, warm-up included; `refused` all
    other answers by what they said.
    """

    requests_per_s: float
    events_per_s: float
    p50_ms: float
    p99_ms: float
    accepted: int
    refused: dict[str, int]
    generator_cpu: float  # cores that the generator itself used, 1.0: a whole one


class VisibleProbe(msgspec.Struct, frozen=True, kw_only=True):
    """Probes of how soon an acknowledged event is in the answers about usage."""

    host: str
    port: int
    aggregator: str
    api_key: str
    metric: str
    customers: int
    measure_s: float


class VisibleResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the probes saw: seconds from an answer 200 to the first usage with the event in it."""

    accepted: int
    p50_ms: float
    p99_ms: float


class AsgiFloor(msgspec.Struct, frozen=True, kw_only=True):
    """The answer that the no-op handler gives: the headers and the body of a real one."""

    headers: list[tuple[str, str]]
    body: str


class EchoFloor(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer that the trivial responder writes."""

    answer: str


class GrpcEchoFloor(msgspec.Struct, frozen=True, kw_only=True):
    """How many receipts the trivial gRPC server answers with."""

    receipts: int


class Listening(msgspec.Struct, frozen=True):
    """A floor's server is ready on 127.0.0.1."""

    port: int


class CopyFloor(msgspec.Struct, frozen=True, kw_only=True):
    """A bare COPY of stored events of `metric` into a table without index or constraint."""

    database_url: str
    metric: str
    connections: int
    rows_per_copy: int
    rows_prepared: int
    prebuilt: bool = False
    measure_s: float


class CopyResult(msgspec.Struct, frozen=True):
    """What the bare COPY did."""

    rows_per_s: float
