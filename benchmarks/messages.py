"""What the benchmark and its processes tell each other: one JSON each, by stdin and stdout."""

from typing import Literal

import msgspec

Shape = Literal["single", "batch", "ndjson"]

# What LoadResult.refused calls the answers that an overload may get.
OVERLOADED_HTTP = "503 with Retry-After"
OVERLOADED_GRPC = "RESOURCE_EXHAUSTED with RetryInfo"


class LoadBase(msgspec.Struct, frozen=True, kw_only=True):
    """What all loads have in common.

    `rate_per_s` None: the next request goes out with the answer to the one before. Otherwise
    requests (not events) go out on a schedule, and latency counts from the scheduled instant, so
    that a stalled server is charged for all requests that it made wait.
    """

    api_key: str
    metric: str
    events_per_request: int = 1
    rate_per_s: float | None = None
    warm_up_s: float
    measure_s: float
    # 16 characters that all keys begin with; empty: random ones, that no other load has.
    run: str = ""
    # Send the first so many requests of `run`, over and over: all were stored before.
    known_requests: int | None = None
    # End after so many requests, even when time is left.
    requests_max: int | None = None
    # More than the server takes, by a schedule: being refused as overload is an answer, and what is
    # due while nothing is free to send it is left out.
    overload: bool = False


class HttpLoad(LoadBase, frozen=True, kw_only=True):
    """A load of POSTs; every connection has one request outstanding."""

    host: str
    port: int
    path: str
    shape: Shape = "single"
    connections: int


class GrpcLoad(LoadBase, frozen=True, kw_only=True):
    """A load of RecordEvents calls, or of StreamEvents streams, at most `in_flight` at once.

    A stream has one request unanswered. Only calls can go by a schedule.
    """

    address: str
    stream: bool = False
    in_flight: int


class CallLoad(msgspec.Struct, frozen=True, kw_only=True):
    """A load of unary calls of one method, each with the next of `requests` in turn, over and over.

    The next call goes out with the answer to the one before, `in_flight` at once.
    """

    address: str
    method: str
    api_key: str
    requests: list[bytes]
    in_flight: int
    warm_up_s: float
    measure_s: float


class FoldLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Batches of new events that are counted one group after the other.

    `database_url` "": only folded in memory. Customers are called prefix + number.
    """

    database_url: str = ""
    organization_id: str
    prefix: str
    customers: int
    warm_up_s: float
    measure_s: float


class FoldResult(msgspec.Struct, frozen=True):
    """What was folded while it counted, and in how much processor time of this process."""

    events_per_s: float
    events_per_core_s: float
    events: int


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a load did. Rates and latencies are of the measured window, without the warm-up, and of
    the requests that were not refused.

    `accepted` counts all events that were acknowledged as new, warm-up included, and `duplicates`
    those that were acknowledged as known; `refused` all other answers by what they said, and
    `unsent` the requests of an overload that nothing was free to send. `timeline` tells how many
    events were accepted by when (time.perf_counter(), which is the machine's), every 50 ms.
    """

    requests_per_s: float
    events_per_s: float
    p50_ms: float
    p99_ms: float
    requests: int
    accepted: int
    duplicates: int
    refused: dict[str, int]
    refused_p99_ms: float
    unsent: int
    timeline: list[tuple[float, int]]
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


class WebhookReceiver(msgspec.Struct, frozen=True, kw_only=True):
    """An application that receives webhooks; a black hole accepts them and never answers."""

    black_hole: bool = False


class WebhookFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver got: how many different deliveries, how many of them came twice, over how
    many seconds, and how long after its making each event came.
    """

    received: int
    twice: int
    span_s: float
    latencies_ms: list[float]


class WebhookSample(msgspec.Struct, frozen=True):
    """A webhook as it came."""

    headers: list[tuple[str, str]]
    body: str


class WebhookFloor(msgspec.Struct, frozen=True, kw_only=True):
    """A bare HTTP client that posts the same signed webhook over and over."""

    url: str
    sample: WebhookSample
    in_flight: int
    measure_s: float


class WebhookFloorResult(msgspec.Struct, frozen=True):
    """What the bare client did."""

    posts_per_s: float
