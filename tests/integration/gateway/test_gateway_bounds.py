"""Beyond the bounds of its queues the gateway refuses at once, and nothing is lost by it."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.integration.gateway.conftest import World

EVENT = {"metric": "API_CALL", "amount": 1, "customerId": "user_123"}


@pytest.fixture
def settings_changes() -> dict[str, Any]:
    """Bounds that a test reaches."""
    return {
        "ingest_events_waiting_max": 3,
        "requests_in_flight_max": 10,
        "batch_requests_in_flight_max": 1,
        "ingest_call_s_max": 0.5,
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
