"""Beyond the bounds of its queues the gateway refuses at once, and nothing is lost by it."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.integration.gateway.conftest import Gateway, World

EVENT = {"metric": "API_CALL", "amount": 1, "customerId": "user_123"}


@pytest.fixture
def settings_changes() -> dict[str, Any]:
    """Bounds that a test reaches."""
    return {
        "ingest_events_waiting_max": 3,
        "requests_in_flight_max": 10,
        "connections_max": 30,
        "batch_requests_in_flight_max": 1,
        "ingest_call_s_max": 0.5,
        "request_arrival_s_max": 0.4,
    }


async def test_beyond_the_queue_it_is_503_at_once(http: httpx.AsyncClient, world: World) -> None:
    world.recording.clear()
    waiting = [asyncio.create_task(http.post("/api/track", json=EVENT)) for _ in range(8)]
    done, _ = await asyncio.wait(waiting, timeout=0.3)
    assert {task.result().status_code for task in done} == {503}
    assert len(done) >= 4
    world.recording.set()
    answers = await asyncio.gather(*waiting)
    assert min(answer.status_code for answer in answers) == 200


async def test_beyond_the_requests_in_flight_it_is_503(
    http: httpx.AsyncClient, world: World
) -> None:
    world.recording.clear()
    waiting = [asyncio.create_task(http.post("/api/track", json=EVENT)) for _ in range(20)]
    answers = await asyncio.gather(*waiting)
    assert "Too many requests are running" in {answer.json()["error"] for answer in answers}


async def test_one_batch_too_many_is_503(http: httpx.AsyncClient, world: World) -> None:
    world.recording.clear()
    batch = {"events": [EVENT]}
    first = asyncio.create_task(http.post("/api/track/batch", json=batch))
    _, pending = await asyncio.wait([first], timeout=0.2)
    assert pending
    assert (await http.post("/api/track/batch", json=batch)).status_code == 503
    world.recording.set()
    assert (await first).status_code == 200


async def test_an_ingest_that_hangs_is_503_in_time(http: httpx.AsyncClient, world: World) -> None:
    world.recording.clear()
    async with asyncio.timeout(3):
        answer = await http.post("/api/track", json=EVENT)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def read_from(gateway: Gateway, sent: bytes) -> bytes:
    """What the gateway answers to bare bytes until it closes the connection."""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /api/tr",
        b"POST /api/track HTTP/1.1\r\nHost: a\r\n",
        b"POST /api/track HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"x-usageflow-api-key: KEY\r\nContent-Length: 30\r\n\r\n{",
        b"POST /api/metrics HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"x-usageflow-api-key: KEY\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
    ],
)
async def test_a_request_that_does_not_arrive_is_not_waited_for(
    gateway: Gateway, world: World, sent: bytes
) -> None:
    answer = await read_from(gateway, sent.replace(b"KEY", world.new_key().encode()))
    assert answer == b""


async def test_a_connection_between_two_requests_is_kept(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).status_code == 200
    (connection,) = http._transport._pool.connections  # type: ignore[attr-defined]
    await asyncio.sleep(1)
    assert (await http.get("/healthz")).status_code == 200
    assert http._transport._pool.connections == [connection]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"POST /api/track HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /api/track HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_400_in_the_contracts_shape(
    gateway: Gateway, sent: bytes
) -> None:
    head, _, body = (await read_from(gateway, sent)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request")
    assert json.loads(body)["code"] == "bad_request"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"a" * 1_000_000,
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 1_000_000,
        b"POST /api/track HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 200_000,
    ],
)
async def test_a_head_without_end_is_not_read_on(gateway: Gateway, sent: bytes) -> None:
    """The connection is closed with bytes unread, so the 400 may be lost on the way."""
    try:
        answer = await read_from(gateway, sent)
    except ConnectionResetError:
        answer = b""
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 Bad Request")


async def test_one_connection_too_many_is_503_and_closed(gateway: Gateway) -> None:
    port = int(gateway.url.rpartition(":")[2])
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(30)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 1\r\n" in answer
    # Whoever leaves makes room for another.
    for _reader, leaving in (*opened, (reader, writer)):
        leaving.close()
        await leaving.wait_closed()
    async with asyncio.timeout(10):
        while (await gateway.client.get("/healthz")).status_code != 200:
            pass
