"""Limits of organizations and keys, and networks of keys, as callers of gateways see them."""

import asyncio
import time
from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from usageflow.aggregator.v1 import aggregator_pb2
from usageflow.gateway.v1.messages_pb2 import RatesReport

from cli.embedded import EmbeddedNats
from gateway.rate_exchange import RateExchange
from gateway.rates import BURST_S, Rates
from services.kit.auth import Principal
from services.kit.errors import UnavailableError
from tests.integration.gateway.conftest import Gateway, World, serving
from tests.waiting import until

EVENT = {"metric": "API_CALL", "amount": 1, "customerId": "user_123"}
LOAD_S = 3.0


@pytest.fixture
def settings_changes() -> dict[str, Any]:
    """A proxy on this machine is believed."""
    return {"trusted_proxies": "127.0.0.0/8"}


def with_key(secret: str) -> dict[str, str]:
    """The header of requests."""
    return {"x-usageflow-api-key": secret}


async def test_beyond_the_limit_it_is_429_with_when_to_try_again(
    http: httpx.AsyncClient, world: World
) -> None:
    key = with_key(world.new_key(requests_per_s=5))
    answers = [await http.post("/api/track", json=EVENT, headers=key) for _ in range(7)]
    statuses = [answer.status_code for answer in answers]
    # The first one goes the long way, for its key is unknown, the others the quick one.
    assert statuses[:5] == [200] * 5
    assert statuses[-1] == 429
    assert "ratelimit" not in answers[1].headers
    assert answers[3].headers["ratelimit"].startswith('"organization-requests";r=')
    policy = '"organization-requests";q=5;w=1, "organization-events";q=1000000;w=1;qu="events"'
    assert {answer.headers["ratelimit-policy"] for answer in answers[3:]} == {policy}
    refused = answers[-1]
    assert (refused.headers["retry-after"], refused.json()["code"]) == ("1", "rate_limited")
    assert "5 requests a second" in refused.json()["error"]
    assert len(world.events) == statuses.count(200)
    other = await http.get("/api/metrics", headers=key)
    assert (other.status_code, other.headers["ratelimit-policy"]) == (429, policy)


async def test_a_batch_costs_its_events(http: httpx.AsyncClient, world: World) -> None:
    world.answers["ListMetrics"] = aggregator_pb2.ListMetricsResponse()
    key = with_key(world.new_key(key_events_per_s=10))
    batch = {"events": [EVENT] * 30}
    first = await http.post("/api/track/batch", json=batch, headers=key)
    assert (first.status_code, first.json()["accepted"]) == (200, 30)
    assert first.headers["ratelimit"].startswith('"key-events";r=0;t=')
    for path, body in (("/api/track/batch", batch), ("/api/track", EVENT)):
        refused = await http.post(path, json=body, headers=key)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")
    assert len(world.events) == 30
    assert (await http.get("/api/metrics", headers=key)).status_code == 200


@pytest.fixture
async def gateways(nats_server: EmbeddedNats) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """Two of them, each with services of its own, that know the same keys."""
    async with serving(nats_server.url) as one, serving(nats_server.url) as two:
        two.world.principals = one.world.principals
        yield one, two


async def test_two_gateways_keep_to_one_limit_together(gateways: tuple[Gateway, Gateway]) -> None:
    """Within 10 %: what comes while they are asked, and the second that a full bucket holds."""
    # A busy machine has to ask for more than that, too.
    per_s = 20
    key = with_key(gateways[0].world.new_key(key_requests_per_s=per_s))
    begun_s = time.monotonic()
    statuses: list[int] = []

    async def load(gateway: Gateway) -> None:
        while time.monotonic() < begun_s + LOAD_S:
            answer = await gateway.client.post("/api/track", json=EVENT, headers=key)
            statuses.append(answer.status_code)

    await asyncio.gather(*(load(gateway) for gateway in gateways * 2))
    expected = per_s * (time.monotonic() - begun_s + 1)
    stored, refused = statuses.count(200), statuses.count(429)
    assert stored + refused == len(statuses)
    assert stored == pytest.approx(expected, rel=0.1), refused


class Wire:
    """NATS for two exchanges, which a test can cut; what Messaging has of it."""

    def __init__(self) -> None:
        self.cut = False
        self.known: set[str] = set()
        self.listening: list[Any] = []

    async def on_broadcast(self, _subject: str, handler: Any) -> None:
        """Tell `handler` all that is mentioned."""
        self.listening.append(handler)

    async def mention(self, _subject: str, payload: bytes) -> None:
        """Tell everybody, or nobody."""
        if self.cut:
            raise UnavailableError("NATS is away")
        self.known.add(RatesReport.FromString(payload).gateway_id)
        for handler in self.listening:
            await handler(payload)


async def test_cut_off_each_gateway_keeps_to_its_share() -> None:
    wire = Wire()
    both = [Rates(), Rates()]
    exchanges = [RateExchange(rates, wire) for rates in both]  # type: ignore[arg-type]
    for exchange in exchanges:
        await exchange.start()
    running = [asyncio.create_task(exchange.run()) for exchange in exchanges]
    who = Principal("key_1", "org_1", 2, "test", frozenset({"track"}), requests_per_s=10)
    assert [both[0].caller(who).take_events(1) for _ in range(10)] == [None] * 10
    bucket = both[1].quota("org_1:test").requests
    await until("the exchange", lambda: bucket.full_at_s and len(wire.known) == 2, 5)
    # What the one let through is gone at the other, which was never asked.
    left = BURST_S - max(0, bucket.full_at_s - time.monotonic())
    passed = [both[1].caller(who).take_events(1) is None for _ in range(10)].count(True)
    assert passed <= 10 * left + 1
    wire.cut = True
    await until("each for itself", lambda: {rates.share.gateways for rates in both} == {2}, 20)
    wire.cut = False
    await until("both together", lambda: {rates.share.gateways for rates in both} == {1}, 20)
    for task in running:
        task.cancel()


@pytest.mark.parametrize(
    ("networks", "forwarded", "status"),
    [
        ("127.0.0.0/8", None, 200),
        ("203.0.113.0/24", None, 403),
        ("203.0.113.0/24", "203.0.113.7", 200),
        ("203.0.113.0/24", "198.51.100.1", 403),
        # Only the address that the trusted proxy has seen counts, not what was sent to it.
        ("203.0.113.0/24", "203.0.113.7, 198.51.100.1", 403),
        ("2001:db8::/32", "2001:db8::7", 200),
    ],
)
async def test_a_key_works_only_from_its_networks(
    http: httpx.AsyncClient, world: World, networks: str, forwarded: str | None, status: int
) -> None:
    world.answers["ListMetrics"] = aggregator_pb2.ListMetricsResponse()
    headers = with_key(world.new_key(networks=(ip_network(networks),)))
    if forwarded is not None:
        headers["x-forwarded-for"] = forwarded
    answers = [
        await http.post("/api/track", json=EVENT, headers=headers),
        # Its key is known now.
        await http.post("/api/track", json=EVENT, headers=headers),
        await http.post("/api/track/batch", json={"events": [EVENT]}, headers=headers),
        # The service looks at the address itself.
        await http.get("/api/metrics", headers=headers),
    ]
    assert {answer.status_code for answer in answers} == {status}
    if status == 403:
        assert {answer.json()["code"] for answer in answers} == {"address_not_allowed"}
        assert "203.0.113" not in answers[0].text
        assert not world.events
