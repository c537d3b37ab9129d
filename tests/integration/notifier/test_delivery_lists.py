"""Lists of deliveries by endpoint, status, type and time; one delivery with all there is."""

from datetime import timedelta

import pytest
from aiohttp import web

from services.kit.database import TenantKey
from services.kit.errors import InvalidArgumentError, NotFoundError
from services.notifier.domain import DeliveryFilter
from tests.integration.notifier.conftest import ACME, Receiver, World, make_event

OTHER = TenantKey("org_" + "b" * 32, "test")


async def found(world: World, tenant: TenantKey = ACME, **wanted: object) -> list[str]:
    """The event ids of a list, newest first."""
    page, _ = await world.deliveries.list(tenant, DeliveryFilter(**wanted), 0, "")  # type: ignore[arg-type]
    return [delivery.event_id for delivery in page]


async def test_lists_are_filtered_by_endpoint_status_type_and_time(
    world: World, receiver: Receiver
) -> None:
    first, _ = await world.endpoint(receiver.url + "/1", "invoice.*")
    await world.endpoint(receiver.url + "/2", "subscription.*")
    events = [make_event(t) for t in ("invoice.paid", "subscription.created", "invoice.created")]
    for event in events:
        await world.notifier.take_events([event])
        await world.recorder.next()
    paid, subscribed, created = [event.id for event in events]
    assert await found(world) == [created, subscribed, paid]
    assert await found(world, endpoint_id=first.id) == [created, paid]
    assert await found(world, event_type="invoice.*") == [created, paid]
    assert await found(world, event_type="subscription.created") == [subscribed]
    assert await found(world, status="succeeded") == [created, subscribed, paid]
    assert await found(world, status="failed") == []
    page, _ = await world.deliveries.list(ACME, DeliveryFilter(), 0, "")
    middle = page[1].create_time
    assert await found(world, from_time=middle) == [created, subscribed]
    assert await found(world, to_time=middle) == [paid]
    assert await found(world, from_time=middle, to_time=middle + timedelta(microseconds=1)) == [
        subscribed
    ]
    assert await found(world, OTHER) == []
    with pytest.raises(InvalidArgumentError, match="type"):
        await found(world, event_type="invoice.crated")
    with pytest.raises(NotFoundError):
        await found(world, OTHER, endpoint_id=first.id)


async def test_pages_over_all_endpoints_give_each_delivery_once(
    world: World, receiver: Receiver
) -> None:
    for number in range(2):
        await world.endpoint(f"{receiver.url}/{number}")
    # Of one transaction: all have the same time.
    await world.notifier.take_events([make_event() for _ in range(4)])
    seen: list[str] = []
    token = ""
    for _ in range(3):
        page, token = await world.deliveries.list(ACME, DeliveryFilter(), 3, token)
        seen.extend(delivery.id for delivery in page)
    assert len(set(seen)) == len(seen) == 8
    assert token == ""


async def test_one_delivery_comes_with_its_payload_and_16_kib_of_each_answer(
    world: World, receiver: Receiver
) -> None:
    async def long(_request: web.Request) -> web.StreamResponse:
        return web.Response(text="x" * 20_000)

    receiver.always = long
    endpoint, _ = await world.endpoint(receiver.url)
    event = make_event()
    await world.notifier.take_events([event])
    await world.recorder.next()
    (listed,), _ = await world.listed(endpoint.id)
    assert (len(listed.attempts[0].response_body), listed.payload) == (1_024, b"")
    whole = await world.deliveries.get(ACME, listed.id)
    assert whole.payload == event.body
    assert whole.attempts[0].response_body == b"x" * 16_384
    for tenant, delivery_id in ((OTHER, listed.id), (ACME, "whd_" + "0" * 32), (ACME, "x")):
        with pytest.raises(NotFoundError):
            await world.deliveries.get(tenant, delivery_id)
