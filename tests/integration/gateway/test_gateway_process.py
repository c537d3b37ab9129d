"""The gateway's life: without its services, with a key revoked, and its end."""

import asyncio
import time

import httpx
import pytest
from usageflow.accounts.v1 import messages_pb2

from cli.embedded import EmbeddedNats
from services.kit.auth import KEY_CHANGED_SUBJECT
from services.kit.grpc_server import GrpcServer
from services.kit.messaging import Messaging
from tests.integration.gateway.conftest import Gateway, World

EVENT = {"metric": "API_CALL", "amount": 1}


async def test_it_is_not_ready_without_its_services(gateway: Gateway, services: GrpcServer) -> None:
    await services.stop()
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        answer = await client.get("/readyz")
        alive = await client.get("/healthz")
    assert (answer.status_code, answer.json()["missing"]) == (503, ["accounts", "ingest"])
    assert alive.status_code == 200


async def test_without_services_events_are_503_quickly(
    http: httpx.AsyncClient, services: GrpcServer
) -> None:
    assert (await http.post("/api/track", json=EVENT)).status_code == 200
    await services.stop()
    began = time.monotonic()
    answer = await http.post("/api/track", json=EVENT)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert time.monotonic() - began < 5


async def test_a_revoked_key_stops_working_within_a_second(
    http: httpx.AsyncClient, world: World, nats_server: EmbeddedNats
) -> None:
    assert (await http.post("/api/track", json=EVENT)).status_code == 200
    (principal,) = world.principals.values()
    world.principals.clear()
    assert (await http.post("/api/track", json=EVENT)).status_code == 200
    messaging = await Messaging.connect(nats_server.url, "accounts")
    change = messages_pb2.ApiKeyChanged(key_id=principal.key_id)
    await messaging.broadcast(KEY_CHANGED_SUBJECT, change.SerializeToString())
    async with asyncio.timeout(1):
        while (await http.post("/api/track", json=EVENT)).status_code == 200:
            await asyncio.sleep(0.01)
    await messaging.close()


async def test_requests_on_their_way_are_answered_when_it_stops(
    gateway: Gateway, http: httpx.AsyncClient, world: World
) -> None:
    world.recording.clear()
    waiting = [asyncio.create_task(http.post("/api/track", json=EVENT)) for _ in range(5)]
    done, _ = await asyncio.wait(waiting, timeout=0.3)
    assert not done
    stopping = asyncio.create_task(gateway.server.stop())
    await asyncio.sleep(0.2)
    world.recording.set()
    answers = await asyncio.gather(*waiting)
    await stopping
    assert {answer.status_code for answer in answers} == {200}
    with pytest.raises(httpx.ConnectError):
        async with httpx.AsyncClient() as client:
            await client.get(f"{gateway.url}/healthz")
