"""From a billing event to a verified webhook, with everything that may go wrong between."""

import asyncio
from datetime import timedelta

import pytest
from aiohttp import web
from sqlalchemy import text

from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import NotFoundError, PreconditionError
from services.notifier.domain import Delivery
from tests.integration.notifier.conftest import (
    ACME,
    Receiver,
    World,
    Worlds,
    make_event,
    status,
)


async def only_delivery(world: World, endpoint_id: str) -> Delivery:
    deliveries, _ = await world.listed(endpoint_id)
    assert len(deliveries) == 1
    return deliveries[0]


async def test_an_event_arrives_signed_exactly_as_the_contract_says(
    world: World, receiver: Receiver
) -> None:
    _, secret = await world.endpoint(receiver.url, "invoice.created")
    event = make_event()
    await world.notifier.take_events([event])
    received = await receiver.next()
    verified = received.verified_by(secret)
    assert list(verified) == ["type", "timestamp", "data"]
    assert verified["type"] == "invoice.created"
    assert verified["data"] == {"invoiceId": "inv_1", "amount": "120.00"}
    assert received.body == event.body
    assert received.webhook_id == event.id
    assert received.headers["content-type"] == "application/json"
    assert received.headers["user-agent"].startswith("UsageFlow")
    assert abs(int(received.headers["webhook-timestamp"]) - clock.now().timestamp()) < 5
    assert "accept-encoding" not in received.headers


async def test_a_success_is_recorded_with_the_answer(world: World, receiver: Receiver) -> None:
    endpoint, _ = await world.endpoint(receiver.url)
    await world.notifier.take_events([make_event()])
    await world.recorder.next()
    delivery = await only_delivery(world, endpoint.id)
    assert (delivery.status, delivery.next_attempt_time) == ("succeeded", None)
    (attempt,) = delivery.attempts
    assert (attempt.number, attempt.response_status, attempt.error) == (1, 200, "")
    assert attempt.response_body == b"thanks"
    assert 0 <= attempt.duration_ms < 5_000


async def test_after_a_500_it_is_sent_again_with_the_same_id_and_a_new_timestamp_signed(
    world: World, receiver: Receiver
) -> None:
    endpoint, secret = await world.endpoint(receiver.url)
    receiver.answers = [status(500, "broken")]
    event = make_event()
    await world.notifier.take_events([event])
    first, second = await receiver.next(), await receiver.next()
    assert first.webhook_id == second.webhook_id == event.id
    assert first.verified_by(secret) == second.verified_by(secret)
    await world.recorder.next()
    await world.recorder.next()
    delivery = await only_delivery(world, endpoint.id)
    assert delivery.status == "succeeded"
    recorded = [(a.number, a.response_status, a.error) for a in delivery.attempts]
    assert recorded == [(1, 500, "http_status"), (2, 200, "")]
    assert delivery.attempts[0].response_body == b"broken"


async def test_when_every_attempt_failed_the_delivery_has_failed(
    world: World, receiver: Receiver
) -> None:
    endpoint, _ = await world.endpoint(receiver.url)
    receiver.always = status(503)
    await world.notifier.take_events([make_event()])
    for _ in range(3):
        await world.recorder.next()
    delivery = await only_delivery(world, endpoint.id)
    assert (delivery.status, delivery.next_attempt_time) == ("failed", None)
    assert [attempt.response_status for attempt in delivery.attempts] == [503, 503, 503]


async def test_between_attempts_the_delivery_tells_when_the_next_is_due(
    make_world: Worlds, receiver: Receiver
) -> None:
    world = await make_world(webhook_retry_delays_s="0,3600")
    endpoint, _ = await world.endpoint(receiver.url)
    receiver.always = status(500)
    await world.notifier.take_events([make_event()])
    await world.recorder.next()
    delivery = await only_delivery(world, endpoint.id)
    assert delivery.status == "pending"
    assert delivery.next_attempt_time is not None
    waits = delivery.next_attempt_time - clock.now()
    assert timedelta(minutes=47) < waits < timedelta(minutes=73)


async def test_an_event_goes_to_each_endpoint_that_subscribed_to_its_type(
    world: World, receiver: Receiver
) -> None:
    await world.endpoint(receiver.url + "/all")
    await world.endpoint(receiver.url + "/paid", "invoice.paid", "invoice.failed")
    await world.endpoint(receiver.url + "/created", "invoice.created")
    assert await world.notifier.take_events([make_event("invoice.paid")]) == 2
    paths = {(await receiver.next()).path for _ in range(2)}
    assert paths == {"/hooks/all", "/hooks/paid"}


async def test_an_event_goes_to_its_own_tenant_only(world: World, receiver: Receiver) -> None:
    live = TenantKey(ACME.organization_id, "live")
    other = TenantKey("org_" + "b" * 32, "test")
    for name, tenant in (("acme", ACME), ("live", live), ("other", other)):
        await world.endpoint(f"{receiver.url}/{name}", tenant=tenant)
    assert await world.notifier.take_events([make_event(tenant=live)]) == 1
    assert (await receiver.next()).path == "/hooks/live"


async def test_the_same_event_twice_is_delivered_once(world: World, receiver: Receiver) -> None:
    await world.endpoint(receiver.url)
    event = make_event()
    assert await world.notifier.take_events([event, event]) == 1
    assert await world.notifier.take_events([event]) == 0
    await world.recorder.next()
    assert receiver.requests.qsize() == 1


async def test_two_consumers_with_the_same_event_make_one_delivery(
    world: World, receiver: Receiver
) -> None:
    await world.endpoint(receiver.url)
    events = [make_event() for _ in range(20)]
    counts = await asyncio.gather(
        *(world.notifier.take_events(batch) for batch in (events, events[::-1], events))
    )
    assert sum(counts) == 20


async def test_an_endpoint_registered_later_gets_nothing_of_before(
    world: World, receiver: Receiver
) -> None:
    assert await world.notifier.take_events([make_event()]) == 0
    endpoint, _ = await world.endpoint(receiver.url)
    found, _ = await world.listed(endpoint.id)
    assert found == []


async def test_a_test_event_goes_to_one_endpoint_whatever_it_subscribed_to(
    world: World, receiver: Receiver
) -> None:
    endpoint, secret = await world.endpoint(receiver.url + "/one", "invoice.paid")
    await world.endpoint(receiver.url + "/other")
    delivery = await world.notifier.send_test(ACME, endpoint.id)
    assert (delivery.event_type, delivery.status) == ("webhook.test", "pending")
    received = await receiver.next()
    assert received.path == "/hooks/one"
    assert received.verified_by(secret)["type"] == "webhook.test"
    await world.recorder.next()
    assert receiver.requests.empty()


async def test_for_24_hours_both_secrets_sign_and_then_the_new_one_alone(
    world: World, receiver: Receiver, database: Database
) -> None:
    endpoint, old = await world.endpoint(receiver.url)
    new = (await world.notifier.rotate_secret(ACME, endpoint.id)).secret
    await world.notifier.take_events([make_event()])
    received = await receiver.next()
    assert received.verified_by(old) == received.verified_by(new)
    async with database.transaction() as connection:
        left = await connection.execute(
            text("SELECT expire_time - now() FROM endpoint_secrets WHERE expire_time IS NOT NULL")
        )
        assert timedelta(hours=23) < left.scalar_one() <= timedelta(hours=24)
        await connection.execute(
            text("UPDATE endpoint_secrets SET expire_time = now() WHERE expire_time IS NOT NULL")
        )
    await world.notifier.take_events([make_event()])
    received = await receiver.next()
    assert received.verified_by(new)
    assert len(received.headers["webhook-signature"].split(" ")) == 1


async def test_secrets_that_sign_at_once_are_bounded(world: World, receiver: Receiver) -> None:
    endpoint, _ = await world.endpoint(receiver.url)
    for _ in range(9):
        await world.notifier.rotate_secret(ACME, endpoint.id)
    with pytest.raises(PreconditionError, match="At most 10 secrets"):
        await world.notifier.rotate_secret(ACME, endpoint.id)


async def test_endpoints_of_a_tenant_are_bounded(world: World, receiver: Receiver) -> None:
    for _ in range(100):
        await world.endpoint(receiver.url)
    with pytest.raises(PreconditionError, match="at most 100"):
        await world.endpoint(receiver.url)


async def test_what_is_pending_for_a_deleted_endpoint_is_dropped(
    make_world: Worlds, receiver: Receiver, database: Database
) -> None:
    world = await make_world(webhook_retry_delays_s="0,0.3")
    endpoint, _ = await world.endpoint(receiver.url)
    receiver.always = status(500)
    await world.notifier.take_events([make_event()])
    await world.recorder.next()
    await world.notifier.delete_endpoint(ACME, endpoint.id)
    await world.notifier.delete_endpoint(ACME, endpoint.id)
    assert await world.notifier.take_events([make_event()]) == 0
    async with database.transaction() as connection:
        statuses = await connection.execute(text("SELECT status FROM deliveries"))
        assert statuses.scalars().all() == ["dropped"]
    with pytest.raises(NotFoundError):
        await world.notifier.get_endpoint(ACME, endpoint.id)
    with pytest.raises(NotFoundError):
        await world.listed(endpoint.id)


async def test_a_delivery_left_pending_for_a_deleted_endpoint_is_dropped_when_it_is_due(
    world: World, receiver: Receiver, database: Database
) -> None:
    """As when the event came in while the endpoint was being deleted."""
    endpoint, _ = await world.endpoint(receiver.url)
    other, _ = await world.endpoint(receiver.url + "/other")
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE endpoints SET delete_time = now(), enabled = false WHERE id = :id"),
            {"id": endpoint.id},
        )
        await connection.execute(
            text(
                "INSERT INTO webhook_events VALUES (:org, 'test', 'whevt_1', 'invoice.paid',"
                " now(), '{}')"
            ),
            {"org": ACME.organization_id},
        )
        await connection.execute(
            text(
                "INSERT INTO deliveries SELECT 'whd_' || md5(id), organization_id, mode, 'whevt_1',"
                " id, 'pending', 0, 0, now(), NULL, now() FROM endpoints"
            )
        )
    world.due.set()
    assert (await receiver.next()).path == "/hooks/other"
    await world.recorder.next()
    async with database.transaction() as connection:
        rows = await connection.execute(text("SELECT endpoint_id, status FROM deliveries"))
        assert {row.endpoint_id: row.status for row in rows} == {
            endpoint.id: "dropped",
            other.id: "succeeded",
        }


async def test_a_replay_sends_the_same_webhook_again(world: World, receiver: Receiver) -> None:
    endpoint, secret = await world.endpoint(receiver.url)
    event = make_event()
    await world.notifier.take_events([event])
    await receiver.next()
    await world.recorder.next()
    delivery = await only_delivery(world, endpoint.id)
    replayed = await world.deliveries.replay(ACME, delivery.id)
    assert replayed.status == "pending"
    again = await receiver.next()
    assert again.webhook_id == event.id
    assert again.verified_by(secret)
    await world.recorder.next()
    delivery = await only_delivery(world, endpoint.id)
    assert [attempt.number for attempt in delivery.attempts] == [1, 2]
    assert delivery.status == "succeeded"


async def test_a_double_click_on_replay_sends_once(world: World, receiver: Receiver) -> None:
    endpoint, _ = await world.endpoint(receiver.url)
    await world.notifier.take_events([make_event()])
    await world.recorder.next()
    delivery = await only_delivery(world, endpoint.id)
    await asyncio.gather(*(world.deliveries.replay(ACME, delivery.id) for _ in range(3)))
    await world.recorder.next()
    after = await world.deliveries.replay(ACME, delivery.id)
    assert after.status == "succeeded"
    assert len(after.attempts) == 2


async def test_a_replayed_failure_begins_its_schedule_anew(
    world: World, receiver: Receiver
) -> None:
    endpoint, _ = await world.endpoint(receiver.url)
    receiver.answers = [status(500)] * 5
    await world.notifier.take_events([make_event()])
    for _ in range(3):
        await world.recorder.next()
    delivery = await only_delivery(world, endpoint.id)
    assert delivery.status == "failed"
    await world.deliveries.replay(ACME, delivery.id)
    for _ in range(3):
        await world.recorder.next()
    delivery = await only_delivery(world, endpoint.id)
    assert delivery.status == "succeeded"
    assert len(delivery.attempts) == 6


async def test_deliveries_are_listed_by_status_and_page(world: World, receiver: Receiver) -> None:
    endpoint, _ = await world.endpoint(receiver.url)
    await world.notifier.take_events([make_event() for _ in range(5)])
    for _ in range(5):
        await world.recorder.next()
    seen: list[str] = []
    token = ""
    for _ in range(3):
        page, token = await world.listed(endpoint.id, "succeeded", 2, token)
        seen.extend(delivery.id for delivery in page)
    assert len(seen) == 5
    assert seen == sorted(set(seen), reverse=True)
    assert token == ""
    assert await world.listed(endpoint.id, "failed") == ([], "")


async def test_nothing_private_is_logged(
    world: World, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint, secret = await world.endpoint(receiver.url + "?token=urlsecret")
    new_secret = (await world.notifier.rotate_secret(ACME, endpoint.id)).secret

    async def echo(request: web.Request) -> web.StreamResponse:
        return web.Response(status=500, body=await request.read())

    receiver.always = echo
    await world.notifier.take_events([make_event()])
    for _ in range(3):
        await world.recorder.next()
    output = "".join(capsys.readouterr())
    assert "webhook_attempt_failed" in output
    for private in (secret, new_secret, "inv_1", "120.00", "urlsecret"):
        assert private not in output
