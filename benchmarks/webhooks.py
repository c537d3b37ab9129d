"""A stack's webhooks as the benchmark needs them: endpoints, billing events, a backlog, figures."""

import asyncio
import http.client
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import msgspec
import nats
from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.common.v1 import common_pb2
from usageflow.events.v1 import events_pb2

from benchmarks.errors import BenchmarkError
from benchmarks.messages import WebhookFigures, WebhookSample
from benchmarks.stack import CALL_S_MAX, KEY_HEADER, MeasuredStack

SUBJECT = "usageflow.billing.event"
PUBLISHED_AT_ONCE = 50
STILL_S_MAX = 60.0
POLL_S = 0.1

# Of an invoice, as invoicer makes it, so that bodies have the usual size.
DATA = (
    '{"invoiceId":"inv_0198c6a4f2c07b1e9d3a5b7c9e1f2a3b","number":"INV-000042",'
    '"customerId":"user_0001","amount":"120.00","currency":"USD",'
    '"periodStart":"2026-01-01T00:00:00Z","periodEnd":"2026-02-01T00:00:00Z",'
    '"status":"PENDING","sequence":1,"sentMicros":%d}'
)

_BACKLOG_EVENTS = """
INSERT INTO webhook_events (organization_id, mode, id, type, create_time, body)
SELECT $1, 'test', 'whevt_' || md5($2 || n), 'invoice.paid', now(), $3
FROM generate_series(1, $4::int) n
"""
_BACKLOG = """
INSERT INTO deliveries (id, organization_id, mode, event_id, endpoint_id, status, attempt_count,
    schedule_step, next_attempt_time, create_time)
SELECT 'whd_' || md5($2 || n || e), $1, 'test', 'whevt_' || md5($2 || n), e, 'pending', 0, 0,
    now(), now()
FROM generate_series(1, $4::int) n CROSS JOIN unnest($3::text[]) e
"""
_STATUSES = """
SELECT status, count(*) AS deliveries, max(attempt_count) AS attempts FROM deliveries
WHERE endpoint_id = ANY($1::text[]) GROUP BY status
"""


class Webhooks:
    """The webhooks of a stack's own organization, in test mode."""

    def __init__(self, stack: MeasuredStack) -> None:
        self._stack = stack
        self._http = httpx.Client(
            base_url=stack.connection.http,
            headers={KEY_HEADER: stack.connection.api_key},
            timeout=CALL_S_MAX,
            trust_env=False,
        )
        self._organization_id = self._call("GET", "/api/organization")["id"]

    def close(self) -> None:
        """Let go of the stack; it runs on."""
        self._http.close()

    def _call(self, method: str, path: str, body: object = None) -> Any:
        answer = self._http.request(method, path, json=body)
        if not answer.is_success:
            raise BenchmarkError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    def register(self, port: int, count: int, event_type: str) -> list[str]:
        """So many endpoints at a receiver; their ids."""
        return [
            self._call(
                "POST",
                "/api/webhooks",
                {"url": f"http://127.0.0.1:{port}/{number}", "events": [event_type]},
            )["id"]
            for number in range(count)
        ]

    def remove(self, endpoint_ids: Sequence[str]) -> None:
        """End endpoints, and what is pending for them."""
        for endpoint_id in endpoint_ids:
            self._call("DELETE", f"/api/webhooks/{endpoint_id}")

    def send(self, event_type: str, count: int, rate_per_s: float | None = None) -> None:
        """Publish so many billing events as invoicer would, at once or by a schedule."""
        asyncio.run(self._send(event_type, count, rate_per_s))

    async def _send(self, event_type: str, count: int, rate_per_s: float | None) -> None:
        client = await nats.connect(self._stack.connection.nats)
        jetstream = client.jetstream()
        begun_s = time.perf_counter()
        slots = asyncio.Semaphore(PUBLISHED_AT_ONCE)

        async def publish(number: int) -> None:
            async with slots:
                if rate_per_s is not None:
                    due_s = begun_s + number / rate_per_s
                    await asyncio.sleep(due_s - time.perf_counter())
                event = self._event(event_type)
                await jetstream.publish(
                    SUBJECT, event.SerializeToString(), headers={"Nats-Msg-Id": event.id}
                )

        try:
            await asyncio.gather(*(publish(number) for number in range(count)))
        finally:
            await client.close()

    def _event(self, event_type: str) -> events_pb2.BillingEvent:
        created = Timestamp()
        created.FromDatetime(datetime.now(UTC))
        return events_pb2.BillingEvent(
            id=f"whevt_{secrets.token_hex(16)}",
            organization_id=self._organization_id,
            mode=common_pb2.MODE_TEST,
            type=event_type,
            create_time=created,
            data_json=DATA % (time.time_ns() // 1_000),
        )

    def backlog(self, endpoint_ids: Sequence[str], count: int) -> None:
        """So many deliveries that are due, all in all, written straight into the database."""
        asyncio.run(self._backlog(endpoint_ids, count))

    async def _backlog(self, endpoint_ids: Sequence[str], count: int) -> None:
        connection = await self._connect()
        tag, events = secrets.token_hex(8), count // len(endpoint_ids)
        body = msgspec.json.encode({"type": "invoice.paid", "data": {}})
        try:
            await connection.execute(_BACKLOG_EVENTS, self._organization_id, tag, body, events)
            await connection.execute(_BACKLOG, self._organization_id, tag, endpoint_ids, events)
            await connection.execute("ANALYZE deliveries")
        finally:
            await connection.close()

    def await_recorded(self, endpoint_ids: Sequence[str], expected: int) -> None:
        """Wait until all have succeeded at the first attempt; BenchmarkError otherwise."""
        deadline_s = time.monotonic() + STILL_S_MAX
        while (found := asyncio.run(self._statuses(endpoint_ids))) != [("succeeded", expected, 1)]:
            if time.monotonic() > deadline_s:
                raise BenchmarkError(f"{expected} deliveries were expected, but there are {found}")
            time.sleep(POLL_S)

    async def _statuses(self, endpoint_ids: Sequence[str]) -> list[tuple[str, int, int]]:
        connection = await self._connect()
        try:
            rows = await connection.fetch(_STATUSES, endpoint_ids)
        finally:
            await connection.close()
        return [(row["status"], row["deliveries"], row["attempts"]) for row in rows]

    async def _connect(self) -> Any:
        connect: Any = asyncpg.connect
        return await connect(self._stack.connection.databases["notifier"], timeout=CALL_S_MAX)


class ReceiverProbe:
    """Asks a receiver what it got."""

    def __init__(self, port: int) -> None:
        self._port = port

    def sample(self) -> WebhookSample:
        """One webhook as it came."""
        sample = msgspec.json.decode(self._get("/sample"), type=WebhookSample | None)
        if sample is None:
            raise BenchmarkError("no webhook has come")
        return sample

    def take(self) -> WebhookFigures:
        """What it got since the last time."""
        return msgspec.json.decode(self._get("/figures"), type=WebhookFigures)

    def await_all(self, expected: int) -> WebhookFigures:
        """Wait until it has got so many; BenchmarkError when no more come, or one came twice."""
        before, moved_s = -1, time.perf_counter()
        while (received := self._count()) < expected:
            now_s = time.perf_counter()
            if received != before:
                before, moved_s = received, now_s
            if now_s - moved_s > STILL_S_MAX:
                raise BenchmarkError(f"of {expected} webhooks only {received} came")
            time.sleep(POLL_S)
        figures = self.take()
        if figures.twice or figures.received > expected:
            raise BenchmarkError(f"{figures.twice} webhooks came twice")
        return figures

    def _count(self) -> int:
        return int(msgspec.json.decode(self._get("/count"), type=int))

    def _get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=CALL_S_MAX)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()
