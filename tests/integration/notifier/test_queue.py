"""Workers that share the queue: leases, shares, and what a claim costs."""

import asyncio
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit import clock
from services.kit.database import Database, TenantKey
from services.notifier import queue_repository, worker
from services.notifier.domain import Attempt
from services.notifier.queue_repository import Claim, Outcome
from tests.integration.notifier.conftest import (
    WAIT_S,
    Receiver,
    World,
    Worlds,
    make_event,
    make_settings,
)

LEASE = timedelta(seconds=60)


async def claim_all(database: Database, *, late: timedelta = timedelta()) -> list[Claim]:
    """Claim what is due, as a worker whose clock says `late` from now would."""
    now = clock.now() + late
    async with database.transaction() as connection:
        visited = await queue_repository.endpoints_with_pending(
            connection, after="", limit=100, now=now
        )
        return await queue_repository.claim(
            connection,
            {endpoint.endpoint_id: 1_000 for endpoint in visited},
            now=now,
            lease_until=now + LEASE,
            claims_max=1_000,
        )


def attempt(error: str = "") -> Attempt:
    return Attempt(clock.now(), 5, 500 if error else 200, error, b"")


async def test_two_workers_at_once_make_one_delivery_of_an_event(
    make_world: Worlds, receiver: Receiver
) -> None:
    first, second = await make_world(), await make_world()
    await first.endpoint(receiver.url)
    events = [make_event() for _ in range(300)]
    for start in range(0, 300, 30):
        world = first if start % 60 else second
        await world.notifier.take_events(events[start : start + 30])
    received = [(await receiver.next()).webhook_id for _ in events]
    assert sorted(received) == sorted(event.id for event in events)
    assert receiver.requests.empty()


async def test_claims_of_many_at_once_never_overlap(
    database: Database, database_url: str, receiver: Receiver
) -> None:
    idle = World(database, make_settings(database_url))
    await idle.endpoint(receiver.url)
    await idle.notifier.take_events([make_event() for _ in range(200)])
    claims = await asyncio.gather(*(claim_all(database) for _ in range(5)))
    ids = [claim.delivery_id for batch in claims for claim in batch]
    assert len(ids) == len(set(ids)) == 200
    await idle.sender.close()


async def test_a_claim_of_a_worker_that_died_is_taken_over_when_its_lease_has_run_out(
    database: Database, database_url: str, receiver: Receiver
) -> None:
    idle = World(database, make_settings(database_url))
    await idle.endpoint(receiver.url)
    await idle.notifier.take_events([make_event()])
    (claim,) = await claim_all(database)
    assert await claim_all(database) == []
    assert await claim_all(database, late=LEASE - timedelta(seconds=1)) == []
    (taken_over,) = await claim_all(database, late=LEASE + timedelta(seconds=1))
    assert taken_over.delivery_id == claim.delivery_id
    assert taken_over.event_id == claim.event_id
    await idle.sender.close()


@pytest.mark.parametrize(
    ("late_error", "expected_status"), [("timeout", "pending"), ("", "succeeded")]
)
async def test_who_lost_the_lease_records_the_attempt_but_decides_only_by_success(
    database: Database,
    database_url: str,
    receiver: Receiver,
    late_error: str,
    expected_status: str,
) -> None:
    idle = World(database, make_settings(database_url))
    endpoint, _ = await idle.endpoint(receiver.url)
    await idle.notifier.take_events([make_event()])
    (lost,) = await claim_all(database)
    (held,) = await claim_all(database, late=LEASE + timedelta(seconds=1))
    late_status = "failed" if late_error else "succeeded"
    async with database.transaction() as connection:
        await queue_repository.record(
            connection, [Outcome(lost, attempt(late_error), late_status, None)]
        )
    (delivery,), _ = await idle.listed(endpoint.id)
    assert delivery.status == expected_status
    assert len(delivery.attempts) == 1
    async with database.transaction() as connection:
        await queue_repository.record(
            connection, [Outcome(held, attempt("http_status"), "failed", None)]
        )
    (delivery,), _ = await idle.listed(endpoint.id)
    assert delivery.status == ("failed" if late_error else "succeeded")
    assert [made.number for made in delivery.attempts] == [1, 2]
    await idle.sender.close()


async def test_a_stopping_worker_finishes_what_is_in_flight_and_gives_the_rest_back(
    database: Database, database_url: str, receiver: Receiver
) -> None:
    answer_now = asyncio.Event()

    async def slow(_request: web.Request) -> web.StreamResponse:
        await answer_now.wait()
        return web.Response()

    receiver.always = slow
    world = World(database, make_settings(database_url))
    endpoint, _ = await world.endpoint(receiver.url)
    await world.notifier.take_events([make_event() for _ in range(10)])
    recorder = asyncio.create_task(world.recorder.run())
    worker = asyncio.create_task(world.worker.run())
    for _ in range(4):
        await receiver.next()
    worker.cancel()
    for _ in range(20):  # rounds of the event loop, for the worker to notice
        await asyncio.sleep(0)
    answer_now.set()
    await asyncio.gather(worker, return_exceptions=True)
    recorder.cancel()
    await world.sender.close()
    deliveries, _ = await world.listed(endpoint.id)
    assert sorted(delivery.status for delivery in deliveries) == ["pending"] * 6 + ["succeeded"] * 4
    assert len(await claim_all(database)) == 6


async def test_one_endpoint_has_four_in_flight_at_most(world: World, receiver: Receiver) -> None:
    in_flight, highest = 0, 0

    async def count(_request: web.Request) -> web.StreamResponse:
        nonlocal in_flight, highest
        in_flight += 1
        highest = max(highest, in_flight)
        await asyncio.sleep(0.005)
        in_flight -= 1
        return web.Response()

    receiver.always = count
    await world.endpoint(receiver.url)
    await world.notifier.take_events([make_event() for _ in range(60)])
    for _ in range(60):
        await world.recorder.next()
    assert highest == 4


async def test_a_receiver_that_never_answers_does_not_hold_up_another(
    make_world: Worlds, receiver: Receiver
) -> None:
    """Not even with a hundred waiting, of the same organization, in a worker of eight slots."""

    async def black_hole(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("hole"):
            await asyncio.Event().wait()
        return web.Response()

    receiver.always = black_hole
    world = await make_world(
        webhook_in_flight_max=8, webhook_endpoint_in_flight_max=1, webhook_poll_s=60
    )
    await world.endpoint(receiver.url + "/hole", "invoice.created")
    await world.notifier.take_events([make_event("invoice.created") for _ in range(100)])
    assert (await receiver.next()).path.endswith("hole")
    await world.endpoint(receiver.url + "/good", "invoice.paid")
    await world.notifier.take_events([make_event("invoice.paid") for _ in range(20)])
    paths = {(await receiver.next()).path for _ in range(20)}
    assert paths == {"/hooks/good"}


async def test_one_organization_does_not_take_all_slots(
    make_world: Worlds, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SLOW_AFTER_S", 3_600.0)
    other = TenantKey("org_" + "b" * 32, "test")

    async def black_hole(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("hole"):
            await asyncio.Event().wait()
        return web.Response()

    receiver.always = black_hole
    world = await make_world(
        webhook_in_flight_max=8, webhook_endpoint_in_flight_max=1, webhook_poll_s=60
    )
    for _ in range(20):
        await world.endpoint(receiver.url + "/hole")
    await world.endpoint(receiver.url + "/good", tenant=other)
    await world.notifier.take_events([make_event() for _ in range(5)])
    await world.notifier.take_events([make_event(tenant=other) for _ in range(20)])
    paths = [(await receiver.next()).path for _ in range(22)]
    assert paths.count("/hooks/hole") == 2
    assert paths.count("/hooks/good") == 20


async def test_receivers_that_never_answer_do_not_hold_up_others_of_their_organization(
    make_world: Worlds, receiver: Receiver
) -> None:
    """Eight of them with three webhooks each, in a worker of eight slots, two of them for one
    organization: within moments all others arrive, long before the first of them has timed out.
    """

    async def black_hole(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("hole"):
            await asyncio.Event().wait()
        return web.Response()

    receiver.always = black_hole
    world = await make_world(
        webhook_in_flight_max=8,
        webhook_endpoint_in_flight_max=1,
        webhook_timeout_s=50,
        webhook_lease_s=100,
    )
    for _ in range(8):
        await world.endpoint(receiver.url + "/hole", "invoice.created")
    good, _ = await world.endpoint(receiver.url + "/good", "invoice.paid")
    await world.notifier.take_events([make_event("invoice.created") for _ in range(3)])
    await world.notifier.take_events([make_event("invoice.paid") for _ in range(20)])
    for _ in range(20):
        assert (await world.recorder.next()).claim.endpoint_id == good.id


async def test_everything_due_is_claimed_without_waiting_for_the_poll(
    make_world: Worlds, receiver: Receiver
) -> None:
    """More than one claim's worth, for one endpoint and for many, polling once a minute."""
    world = await make_world(webhook_poll_s=60)
    for number in range(3):
        await world.endpoint(f"{receiver.url}/{number}")
    await world.notifier.take_events([make_event() for _ in range(400)])
    async with asyncio.timeout(3 * WAIT_S):
        for _ in range(1_200):
            await world.recorder.next()
    assert receiver.requests.qsize() == 1_200


async def test_a_share_that_grows_during_a_claim_does_not_wait_for_the_poll(
    make_world: Worlds, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second claim is for what the share was; meanwhile everything else has ended."""
    world = await make_world(webhook_poll_s=60, webhook_endpoint_in_flight_max=4)
    first_answered, go_on, all_ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def answer(_request: web.Request) -> web.StreamResponse:
        if first_answered.is_set():
            await go_on.wait()
        first_answered.set()
        return web.Response()

    receiver.always = answer
    claim = queue_repository.claim
    limits: list[int] = []

    async def claim_late(
        connection: AsyncConnection, wanted: Mapping[str, int], **more: Any
    ) -> list[Claim]:
        limits.extend(wanted.values())
        if len(limits) == 2:
            go_on.set()
            for _ in range(4):
                await world.recorder.next()
            all_ended.set()
        return await claim(connection, wanted, **more)

    monkeypatch.setattr(queue_repository, "claim", claim_late)
    await world.endpoint(receiver.url)
    await world.notifier.take_events([make_event() for _ in range(40)])
    await asyncio.wait_for(all_ended.wait(), WAIT_S)
    for _ in range(40 - 4):
        await world.recorder.next()
    assert limits[:2] == [4, 8 - 3]


async def test_a_retry_of_more_endpoints_than_one_walk_visits_comes_in_time(
    make_world: Worlds, receiver: Receiver, database: Database
) -> None:
    seen: set[str] = set()

    async def fail_once(request: web.Request) -> web.StreamResponse:
        first_time = request.path not in seen
        seen.add(request.path)
        return web.Response(status=500 if first_time else 200)

    receiver.always = fail_once
    world = await make_world(webhook_retry_delays_s="0,0.2")
    tenants = [TenantKey(f"org_{number:032x}", "test") for number in range(120)]
    for tenant in tenants:
        await world.endpoint(f"{receiver.url}/{tenant.organization_id}", tenant=tenant)
    await world.notifier.take_events([make_event(tenant=tenant) for tenant in tenants])
    for _ in range(240):
        await world.recorder.next()
    async with database.transaction() as connection:
        rows = await connection.execute(text("SELECT DISTINCT status FROM deliveries"))
        assert rows.scalars().all() == ["succeeded"]


async def test_an_attempt_is_recorded_when_the_database_comes_back(
    make_world: Worlds, receiver: Receiver, database: Database
) -> None:
    """The connections are cut while the receiver is answering."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def answer(_request: web.Request) -> web.StreamResponse:
        arrived.set()
        await go_on.wait()
        return web.Response()

    receiver.always = answer
    world = await make_world()
    endpoint, _ = await world.endpoint(receiver.url)
    await world.notifier.take_events([make_event()])
    await asyncio.wait_for(arrived.wait(), WAIT_S)
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    go_on.set()
    await world.recorder.next()
    (delivery,), _ = await world.listed(endpoint.id)
    assert delivery.status == "succeeded"
    assert len(delivery.attempts) == 1


async def test_a_claim_costs_the_same_with_a_large_backlog(database: Database) -> None:
    """With 1,000 and with 30,000 deliveries it touches as many pages, but for taller indexes."""
    async with database.transaction() as connection:
        for statement in ENDPOINTS:
            await connection.execute(text(statement))
        await connection.execute(text(BACKLOG), {"first": 1, "last": 50})
    small = await pages_read(database)
    async with database.transaction() as connection:
        await connection.execute(text(BACKLOG), {"first": 51, "last": 1_500})
    large = await pages_read(database)
    assert large < 2 * small, (small, large)


ENDPOINTS = (
    """
    INSERT INTO endpoints
    SELECT 'whe_' || md5(n::text), 'org_' || md5('x'), 'test', 'https://example.com', '{}', '',
        true, now()
    FROM generate_series(1, 20) n
    """,
    "INSERT INTO endpoint_secrets (endpoint_id, sealed, create_time)"
    " SELECT id, decode(repeat('00', 32), 'hex'), now() FROM endpoints",
)
# A third each is due, is due later, and is done.
BACKLOG = """
    WITH events AS (
        INSERT INTO webhook_events
        SELECT 'org_' || md5('x'), 'test', 'whevt_' || n, 'invoice.paid', now(), '{}'
        FROM generate_series(CAST(:first AS int), CAST(:last AS int)) n
        RETURNING id, substr(id, 7)::int % 3 AS kind
    )
    INSERT INTO deliveries
    SELECT 'whd_' || md5(w.id || e.id), e.organization_id, 'test', w.id, e.id,
        CASE WHEN w.kind = 0 THEN 'succeeded' ELSE 'pending' END, 0, 0,
        CASE w.kind WHEN 1 THEN now() - interval '1 hour' WHEN 2 THEN now() + interval '1 hour' END,
        NULL, now()
    FROM endpoints e, events w
"""


async def pages_read(database: Database) -> int:
    """Pages that the two statements of a claim of 16 touch, after which it is rolled back."""
    now = clock.now()
    visit = {"after": "", "endpoints_max": 100, "now": now}
    async with database.engine.connect() as connection:
        visited = await queue_repository.endpoints_with_pending(
            connection, after="", limit=100, now=now
        )
        claim = {
            "endpoint_ids": [endpoint.endpoint_id for endpoint in visited[:4]],
            "limits": [4] * 4,
            "now": now,
            "lease_until": now + LEASE,
            "claims_max": 16,
        }
        total = 0
        for statement, values in (
            (queue_repository.VISIT, visit),
            (queue_repository.CLAIM, claim),
        ):
            explain = text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.text}")
            plan = (await connection.execute(explain, values)).scalar_one()
            plan = json.loads(plan) if isinstance(plan, str) else plan
            total += plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]
        await connection.rollback()
    return total
