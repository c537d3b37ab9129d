"""The ways in: single events, batches and NDJSON over HTTP; calls and streams over gRPC."""

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

import grpc
import httpx
from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.ingest.v1 import ingest_pb2 as pb
from usageflow.ingest.v1 import ingest_pb2_grpc

from services.kit.grpc_client import api_key_metadata
from tests.chaos.journal import Attempt
from tests.chaos.usage import NO_RECEIPT, Answer, Receipt, Tenant

REQUEST_TIMEOUT_S = 15.0  # the gateway gives up after 10
STREAM_REQUESTS = 4
CONNECTIONS_MAX = 64
# "Try again"; any other refusal of a valid event is a finding.
TRANSIENT_HTTP = frozenset({429, 502, 503, 504})
TRANSIENT_GRPC = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
    }
)

# What grpcio itself, and no server, says as INTERNAL of a call whose connection was cut.
CONNECTION_CUT = "Internal error from Core"


class Way(Protocol):
    """Sends attempts of one tenant and tells what became of each; never raises."""

    async def __call__(self, tenant: Tenant, attempts: Sequence[Attempt]) -> list[Receipt]: ...


class Refusals:
    """Answers that a valid event never deserves, by their text; a bounded number of texts."""

    TEXTS_MAX = 50

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def note(self, text: str) -> None:
        """Count one."""
        text = text[:300]
        if text in self.counts or len(self.counts) < self.TEXTS_MAX:
            self.counts[text] += 1


class HttpWays:
    """The three ways over HTTP, through one pool of connections."""

    def __init__(self, url: str, refusals: Refusals) -> None:
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=REQUEST_TIMEOUT_S,
            trust_env=False,
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX),
        )
        self._refusals = refusals

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def single(self, tenant: Tenant, attempts: Sequence[Attempt]) -> list[Receipt]:
        """POST /api/track for each, one after the other."""
        return [await self._track(tenant, attempt) for attempt in attempts]

    async def batch(self, tenant: Tenant, attempts: Sequence[Attempt]) -> list[Receipt]:
        """POST /api/track/batch as JSON."""
        body = {"events": [_json_with_key(attempt) for attempt in attempts]}
        return await self._many(tenant, attempts, json.dumps(body), "application/json")

    async def ndjson(self, tenant: Tenant, attempts: Sequence[Attempt]) -> list[Receipt]:
        """POST /api/track/batch as NDJSON."""
        body = "\n".join(json.dumps(_json_with_key(attempt)) for attempt in attempts)
        return await self._many(tenant, attempts, body, "application/x-ndjson")

    async def _track(self, tenant: Tenant, attempt: Attempt) -> Receipt:
        key = attempt.event.key
        headers = {"Idempotency-Key": key} if key else {}
        body = json.dumps(_json(attempt))
        response = await self._post(tenant, "/api/track", body, "application/json", headers)
        if response is None:
            return NO_RECEIPT
        if response.status_code == httpx.codes.CONFLICT:
            return Receipt(Answer.CONFLICT)
        replayed = response.headers.get("idempotent-replayed") == "true"
        answer = Answer.DUPLICATE if replayed else Answer.ACCEPTED
        return Receipt(answer, response.json()["eventId"])

    async def _many(
        self, tenant: Tenant, attempts: Sequence[Attempt], body: str, kind: str
    ) -> list[Receipt]:
        response = await self._post(tenant, "/api/track/batch", body, kind, {})
        if response is None:
            return [NO_RECEIPT] * len(attempts)
        results = response.json()["results"]
        for result in results:
            if result["status"] == Answer.REJECTED:
                self._refusals.note(f"REJECTED {result.get('error')}")
        return [
            Receipt(Answer(result["status"]), result.get("eventId") or "") for result in results
        ]

    async def _post(
        self, tenant: Tenant, path: str, body: str, kind: str, headers: dict[str, str]
    ) -> httpx.Response | None:
        """The answer when it is final; None when nobody knows what became of it."""
        headers = {
            **headers,
            "Content-Type": kind,
            "x-usageflow-api-key": tenant.api_key,
        }
        try:
            response = await self._client.post(path, content=body, headers=headers)
        except httpx.HTTPError:
            return None
        if response.is_success or response.status_code == httpx.codes.CONFLICT:
            return response
        if response.status_code not in TRANSIENT_HTTP:
            self._refusals.note(f"{path}: {response.status_code} {response.text}")
        return None


class GrpcWays:
    """The two ways over gRPC, straight to ingest."""

    def __init__(self, channel: grpc.aio.Channel, refusals: Refusals) -> None:
        self._stub = ingest_pb2_grpc.IngestServiceStub(channel)
        self._refusals = refusals

    async def record(self, tenant: Tenant, attempts: Sequence[Attempt]) -> list[Receipt]:
        """One RecordEvents."""
        request = pb.RecordEventsRequest(events=[_input(attempt) for attempt in attempts])

        async def call(answers: list[Receipt]) -> None:
            response = await self._stub.RecordEvents(
                request, timeout=REQUEST_TIMEOUT_S, metadata=api_key_metadata(tenant.api_key)
            )
            self._read(response.receipts, answers)

        return await self._answers(call, attempts)

    async def stream(self, tenant: Tenant, attempts: Sequence[Attempt]) -> list[Receipt]:
        """One StreamEvents with a few requests on their way at once."""
        size = -(-len(attempts) // STREAM_REQUESTS)
        parts = [attempts[start : start + size] for start in range(0, len(attempts), size)]

        async def call(answers: list[Receipt]) -> None:
            requests = [
                pb.StreamEventsRequest(events=[_input(attempt) for attempt in part])
                for part in parts
            ]
            stream: Any = self._stub.StreamEvents(
                iter(requests), timeout=REQUEST_TIMEOUT_S, metadata=api_key_metadata(tenant.api_key)
            )
            async for response in stream:
                self._read(response.receipts, answers)

        return await self._answers(call, attempts)

    def _read(self, receipts: Sequence[pb.EventReceipt], answers: list[Receipt]) -> None:
        for receipt in receipts:
            name = pb.ReceiptStatus.Name(receipt.status).removeprefix("RECEIPT_STATUS_")
            if name == Answer.REJECTED:
                self._refusals.note(f"REJECTED {receipt.errors}")
            answers.append(Receipt(Answer(name), receipt.event_id))

    async def _answers(
        self, call: Callable[[list[Receipt]], Awaitable[None]], attempts: Sequence[Attempt]
    ) -> list[Receipt]:
        """What the call has told until it ended, however it ended; UNKNOWN for the others."""
        answers: list[Receipt] = []
        try:
            await call(answers)
        except grpc.aio.AioRpcError as error:
            if error.code() not in TRANSIENT_GRPC and error.details() != CONNECTION_CUT:
                self._refusals.note(f"gRPC: {error.code().name} {error.details()}")
        except grpc.aio.UsageError as error:
            self._refusals.note(f"gRPC: {error!r}")
        return answers + [NO_RECEIPT] * (len(attempts) - len(answers))


def _json(attempt: Attempt) -> dict[str, object]:
    event = attempt.event
    body: dict[str, object] = {
        "metric": event.metric,
        "amount": event.amount,
        "metadata": attempt.metadata,
    }
    if event.customer:
        body["customerId"] = event.customer
    if event.time:
        body["timestamp"] = event.time.isoformat()
    return body


def _json_with_key(attempt: Attempt) -> dict[str, object]:
    body = _json(attempt)
    if attempt.event.key:
        body["idempotencyKey"] = attempt.event.key
    return body


def _input(attempt: Attempt) -> pb.EventInput:
    event = attempt.event
    return pb.EventInput(
        metric=event.metric,
        amount=event.amount,
        customer_id=event.customer,
        time=_timestamp(event.time) if event.time else None,
        metadata_json=json.dumps(attempt.metadata),
        idempotency_key=event.key,
    )


def _timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message
