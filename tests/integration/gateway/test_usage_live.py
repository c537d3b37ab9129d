"""GET /api/usage/live: server-sent events over real HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from usageflow.aggregator.v1 import aggregator_pb2 as pb
from usageflow.aggregator.v1 import live_pb2

from gateway import usage_live
from services.kit import auth, errors
from services.kit.errors import FieldProblem
from tests.integration.gateway.conftest import ORGANIZATION_ID, Gateway, World
from tests.integration.gateway.route_cases import at
from tests.waiting import until

PATH = "/api/usage/live?metric=AI_TOKEN&groupBy=model&filter[model]=x&top=5"
WAIT_S = 10.0


def answer(value: str) -> live_pb2.WatchUsageResponse:
    start: dict[str, Any] = {"from": at(1)}
    row = pb.UsageRow(start_time=at(1), end_time=at(31), group={"model": "x"}, value=value)
    usage = pb.QueryUsageResponse(metric="AI_TOKEN", to=at(31), as_of=at(30), rows=[row], **start)
    return live_pb2.WatchUsageResponse(usage=usage)


class Events:
    """What comes in a stream, one block after the other."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def block(self) -> list[str] | None:
        """The lines up to the next empty one; None: the stream has ended."""
        lines: list[str] = []
        async with asyncio.timeout(WAIT_S):
            async for line in self._lines:
                if not line:
                    return lines
                lines.append(line)
        return None

    async def value(self) -> str | None:
        """The figure of the next event; None: the stream has ended."""
        while (lines := await self.block()) is not None:
            fields = dict(line.split(": ", 1) for line in lines)
            if "data" in fields:
                assert fields["event"] == "usage"
                return str(json.loads(fields["data"])["data"][0]["value"])
        return None


@asynccontextmanager
async def watching(
    http: httpx.AsyncClient, path: str = PATH, **headers: str
) -> AsyncIterator[Events]:
    async with http.stream("GET", path, headers=headers) as response:
        yield Events(response)


async def test_the_answer_comes_at_once_and_when_it_changes(
    http: httpx.AsyncClient, world: World
) -> None:
    world.watched.put_nowait(answer("1.5"))
    async with watching(http, **{"Last-Event-ID": "whatever, 7"}) as events:
        headers = events.response.headers
        assert events.response.status_code == 200
        assert headers["content-type"].partition(";")[0] == "text/event-stream"
        assert headers["cache-control"] == "no-store"
        assert headers["x-accel-buffering"] == "no"
        assert await events.block() == ["retry: 2000"]
        lines = await events.block()
        assert lines is not None
        assert [line.partition(":")[0] for line in lines] == ["id", "event", "data"]
        assert json.loads(lines[2].removeprefix("data: ")) == {
            "metric": "AI_TOKEN",
            "from": "2026-01-01T00:00:00Z",
            "to": "2026-01-31T00:00:00Z",
            "asOf": "2026-01-30T00:00:00Z",
            "data": [
                {
                    "start": "2026-01-01T00:00:00Z",
                    "end": "2026-01-31T00:00:00Z",
                    "group": {"model": "x"},
                    "value": "1.5",
                }
            ],
            "nextCursor": None,
            "approximate": False,
        }
        for value in ("2", "3"):
            world.watched.put_nowait(answer(value))
            assert await events.value() == value
    [(_method, request)] = world.requests
    assert isinstance(request, live_pb2.WatchUsageRequest)
    question = request.question
    assert (question.metric, list(question.group_by), question.top) == ("AI_TOKEN", ["model"], 5)
    assert dict(question.filters) == {"model": "x"}
    assert world.callers[-1].organization_id == ORGANIZATION_ID


async def test_a_client_that_goes_away_ends_its_watch(
    http: httpx.AsyncClient, world: World
) -> None:
    world.watched.put_nowait(answer("1"))
    async with watching(http) as events:
        assert await events.value() == "1"
    await until("the end of the watch", lambda: world.watches_ended == 1, WAIT_S)


async def test_a_client_that_reads_slowly_gets_the_newest(
    gateway: Gateway, http: httpx.AsyncClient, world: World
) -> None:
    world.watched.put_nowait(answer("1"))
    host, _, port = gateway.url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1)
    key = http.headers["x-usageflow-api-key"]
    writer.write(
        f"GET {PATH} HTTP/1.1\r\nHost: test\r\nx-usageflow-api-key: {key}\r\n\r\n".encode()
    )
    # Far more than what sockets hold, unread.
    padding = "y" * 100_000
    for number in range(300):
        big = answer(str(number))
        big.usage.rows[0].group["model"] = padding
        world.watched.put_nowait(big)
    await until("all that was sent", world.watched.empty, WAIT_S)
    world.watched.put_nowait(answer("the last"))
    seen = b""
    async with asyncio.timeout(WAIT_S):
        while b"the last" not in seen:
            piece = await reader.read(1_000_000)
            assert piece
            seen += piece
    assert seen.count(b"event: usage") < 300
    writer.close()
    await writer.wait_closed()


async def test_silence_is_filled_with_comments(
    http: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_live, "HEARTBEAT_S", 0.05)
    world.watched.put_nowait(answer("1"))
    async with watching(http) as events:
        assert await events.value() == "1"
        for _ in range(2):
            assert await events.block() == [": nothing has changed"]
        world.watched.put_nowait(answer("2"))
        assert await events.value() == "2"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidArgumentError([FieldProblem("groupBy", "is wrong")]), 400),
        (errors.PermissionDeniedError("No", reason="missing_scope"), 403),
        (errors.OverloadedError("Too many", retry_after_s=5), 429),
        (errors.UnavailableError("away", retry_after_s=2), 503),
        (None, 503),
    ],
)
async def test_what_is_wrong_from_the_start_is_an_error_in_json(
    http: httpx.AsyncClient, world: World, error: Exception | None, status: int
) -> None:
    world.watched.put_nowait(error)
    response = await http.get(PATH)
    assert response.status_code == status
    assert response.json()["requestId"]
    assert ("retry-after" in response.headers) == (status in (429, 503))


async def test_parameters_of_pages_are_refused(http: httpx.AsyncClient, world: World) -> None:
    response = await http.get(f"{PATH}&limit=5&cursor=x&surprise=1")
    assert response.status_code == 400
    assert {each["field"] for each in response.json()["details"]} == {"limit", "cursor", "surprise"}
    assert world.requests == []


async def test_a_revoked_key_ends_the_stream_and_is_refused_after(
    http: httpx.AsyncClient, world: World
) -> None:
    world.watched.put_nowait(answer("1"))
    async with watching(http) as events:
        assert await events.value() == "1"
        world.watched.put_nowait(auth.invalid_key())
        assert await events.value() is None


async def test_more_streams_than_may_be_open_are_refused(
    gateway: Gateway, http: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.watched.put_nowait(answer("1"))
    open_stream = usage_live.LiveStreams.open

    async def full(_self: usage_live.LiveStreams, calls: Any, question: Any) -> Any:
        return await open_stream(usage_live.LiveStreams(streams_max=0), calls, question)

    monkeypatch.setattr(usage_live.LiveStreams, "open", full)
    response = await http.get(PATH)
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")


async def test_a_gateway_that_stops_ends_its_streams(
    gateway: Gateway, http: httpx.AsyncClient, world: World
) -> None:
    world.watched.put_nowait(answer("1"))
    async with watching(http) as events:
        assert await events.value() == "1"
        stopping = asyncio.create_task(gateway.server.stop())
        assert await events.value() is None
    # Long before the time that running requests get.
    await asyncio.wait_for(stopping, 1)


async def test_it_is_documented(http: httpx.AsyncClient) -> None:
    document = (await http.get("/api/openapi.json")).json()
    operation = document["paths"]["/api/usage/live"]["get"]
    assert "text/event-stream" in operation["responses"]["200"]["content"]
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert {"metric", "groupBy", "from", "to", "window", "timezone", "top"} <= names
