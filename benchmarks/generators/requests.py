"""Requests built once; each copy gets its own idempotency keys by one bytes.replace. Pure.

All keys of a request hold the same 32 characters (run and number of the request), so a request
of 500 events costs the generator one replacement instead of 500.
"""

import json
import secrets
from collections.abc import Sequence

from usageflow.ingest.v1.ingest_pb2 import EventInput, RecordEventsRequest

from benchmarks.messages import HttpLoad

# In place of the 32 characters; as long as them, so that no length in the request changes.
MARK = "~request-number-goes-here-32-ch~"
CUSTOMERS = 1_000
_CONTENT_TYPES = {
    "single": "application/json",
    "batch": "application/json",
    "ndjson": "application/x-ndjson",
}


class Requests:
    """An endless supply of requests, of which no two have an idempotency key in common.

    Or the first `known` ones, over and over: supplies with the same `run` are the same.
    """

    def __init__(self, templates: Sequence[bytes], run: str = "", known: int | None = None) -> None:
        """`templates` are taken in turn; `run` is 16 characters, random ones unless given."""
        run = run or secrets.token_hex(8)
        assert len(run) * 2 == len(MARK)
        self._templates = templates
        self._mark = MARK.encode()
        self._run = run.encode()
        self._known = known
        self.count = 0

    def take(self) -> bytes:
        """The next request."""
        number = self.count
        self.count = number + 1
        if self._known is not None:
            number %= self._known
        template = self._templates[number % len(self._templates)]
        return template.replace(self._mark, b"%b%016x" % (self._run, number))


def idempotency_key(run: str, request: int, index: int) -> str:
    """The key of an event: which of the run's requests, and its place in it."""
    return f"{run}{request:016x}-{index:04d}"


def http_templates(load: HttpLoad) -> list[bytes]:
    """Whole HTTP requests over CUSTOMERS customers."""
    if load.shape == "single":
        return [
            _post(load, json.dumps(_track(load.metric, number)), f"Idempotency-Key: {MARK}\r\n")
            for number in range(CUSTOMERS)
        ]
    return [
        _post(load, _lines(events) if load.shape == "ndjson" else json.dumps({"events": events}))
        for events in _batches(load.metric, load.events_per_request)
    ]


def grpc_templates(metric: str, events_per_request: int) -> list[bytes]:
    """RecordEventsRequests (StreamEventsRequest has the same form) over CUSTOMERS customers."""
    return [
        RecordEventsRequest(
            events=(
                EventInput(
                    metric=metric,
                    amount="1",
                    customer_id=str(event["customerId"]),
                    idempotency_key=str(event["idempotencyKey"]),
                )
                for event in events
            )
        ).SerializeToString()
        for events in _batches(metric, events_per_request)
    ]


def _track(metric: str, customer: int) -> dict[str, object]:
    return {"metric": metric, "amount": 1, "customerId": f"user_{customer:04d}"}


def _batches(metric: str, events_per_request: int) -> list[list[dict[str, object]]]:
    requests = max(1, CUSTOMERS // events_per_request)
    return [
        [
            {
                **_track(metric, (request * events_per_request + index) % CUSTOMERS),
                "idempotencyKey": f"{MARK}-{index:04d}",
            }
            for index in range(events_per_request)
        ]
        for request in range(requests)
    ]


def _lines(events: list[dict[str, object]]) -> str:
    return "".join(json.dumps(event) + "\n" for event in events)


def _post(load: HttpLoad, body: str, header: str = "") -> bytes:
    return (
        f"POST {load.path} HTTP/1.1\r\n"
        f"Host: {load.host}:{load.port}\r\n"
        f"x-usageflow-api-key: {load.api_key}\r\n"
        f"Content-Type: {_CONTENT_TYPES[load.shape]}\r\n"
        f"{header}"
        f"Content-Length: {len(body.encode())}\r\n"
        f"\r\n{body}"
    ).encode()
