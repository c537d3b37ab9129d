"""aggregator as the process that `python -m services.aggregator` starts, killed where it hurts."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy import text
from usageflow.events.v1.events_pb2 import EventBatch, FindMissingMessagesRequest
from usageflow.events.v1.events_pb2 import FindMissingMessagesResponse as Missing

from cli.ports import free_port
from services.aggregator.usage_service import UsageAnswers
from services.kit.database import Database, TenantKey
from services.kit.grpc_client import open_channel
from services.kit.messaging import EVENTS, Messaging
from tests.integration.aggregator.ledger import Ledger
from tests.integration.aggregator.sending import Event, batch, total
from tests.waiting import until

START_S = 20.0
STOP_S = 20.0
WAIT_S = 30.0
TOKEN = "internal-token-of-32-characters-"
SUBJECT = "usageflow.events.batch"

Start = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def messaging(nats_url: str) -> AsyncIterator[Messaging]:
    """A connection to NATS, as ingest has."""
    messaging = await Messaging.connect(nats_url, "test")
    yield messaging
    await messaging.close()


@pytest.fixture
async def start(database_url: str, nats_url: str) -> AsyncIterator[Start]:
    """Starts a replica and waits until it serves; all that run at the end are killed."""
    running: list[asyncio.subprocess.Process] = []

    async def start_replica(**settings: str) -> asyncio.subprocess.Process:
        port = free_port()
        environment = {
            "PATH": os.environ["PATH"],
            "USAGEFLOW_DATABASE_URL": database_url,
            "USAGEFLOW_NATS_URL": nats_url,
            "USAGEFLOW_GRPC_LISTEN": f"127.0.0.1:{port}",
            "USAGEFLOW_INTERNAL_TOKEN": TOKEN,
            "USAGEFLOW_INGEST_ADDRESS": f"127.0.0.1:{free_port()}",
            "USAGEFLOW_ACCOUNTS_ADDRESS": f"127.0.0.1:{free_port()}",
            **settings,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.aggregator",
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        running.append(process)
        async with open_channel(f"127.0.0.1:{port}") as channel:
            # It answers before it has looked for its database, then with NOT_SERVING.
            watched = health_pb2_grpc.HealthStub(channel).Watch(  # type: ignore[attr-defined]
                health_pb2.HealthCheckRequest(service="usageflow.aggregator.v1.AggregatorService"),
                timeout=START_S,
                wait_for_ready=True,
            )
            async for health in watched:
                if health.status == health_pb2.HealthCheckResponse.SERVING:
                    break
            watched.cancel()
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        return process

    yield start_replica
    for process in running:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def send(messaging: Messaging, made: EventBatch, copy: str = "") -> None:
    """Publish a batch; another `copy` gets past JetStream's own recognition of duplicates."""
    await messaging.publish(SUBJECT, made.SerializeToString(), made.batch_id + copy)


async def counted(database: Database, events: int) -> None:
    """Until so many events are in the buckets."""
    query = text("SELECT coalesce(sum(event_count), 0) FROM usage_buckets")

    async def all_are() -> bool:
        async with database.transaction() as connection:
            return bool((await connection.execute(query)).scalar_one() == events)

    await until(f"{events} events", all_are, WAIT_S)


async def all_acknowledged(messaging: Messaging) -> None:
    """Until no message of the consumer is pending or waits for its acknowledgement."""
    jetstream = messaging.client.jetstream()

    async def none_is_left() -> bool:
        info = await jetstream.consumer_info(EVENTS.name, "aggregator")
        return bool(info.num_pending == 0 and info.num_ack_pending == 0)

    await until("the acknowledgements", none_is_left, WAIT_S)


async def test_the_process_counts_answers_senders_and_stops_without_showing_a_secret(
    start: Start,
    database: Database,
    answers: UsageAnswers,
    messaging: Messaging,
    tenant: TenantKey,
    database_url: str,
) -> None:
    process = await start(USAGEFLOW_LOG_LEVEL="debug")
    made = batch(tenant, Event("A", "2.5"))
    await send(messaging, made)
    await messaging.publish(SUBJECT, b"\xff no batch", "garbage")
    await send(messaging, batch(tenant, Event("A", "1")))
    await counted(database, 2)
    await all_acknowledged(messaging)
    assert await total(answers, tenant, "A") == 3.5
    asked = FindMissingMessagesRequest(message_ids=[made.batch_id, "never sent"])
    reply = await messaging.request(
        "usageflow.inbox.aggregator", asked.SerializeToString(), timeout_s=5
    )
    assert list(Missing.FromString(reply).missing_message_ids) == ["never sent"]
    process.send_signal(signal.SIGTERM)
    output, _ = await asyncio.wait_for(process.communicate(), STOP_S)
    assert process.returncode == 0, output.decode()
    assert "batch_unreadable" in output.decode()
    for private in (TOKEN, database_url):
        assert private not in output.decode()


async def test_killed_between_commit_and_acknowledgement_it_counts_once(
    start: Start,
    database: Database,
    answers: UsageAnswers,
    messaging: Messaging,
    tenant: TenantKey,
) -> None:
    paused = await start(USAGEFLOW_TEST_PAUSE_AFTER_COMMIT_S="60")
    made = batch(tenant, Event("A", "1"), Event("A", "10"))
    await send(messaging, made)
    await counted(database, 2)
    paused.kill()
    await paused.communicate()
    info = await messaging.client.jetstream().consumer_info(EVENTS.name, "aggregator")
    assert info.num_ack_pending == 1
    await start()
    # JetStream brings it again only after 30 s; ingest would send it again sooner, as here.
    await send(messaging, made, ".again")
    await send(messaging, batch(tenant, Event("A", "100")))
    await counted(database, 3)
    assert await total(answers, tenant, "A") == 111


async def test_killed_between_commit_and_acknowledgement_it_takes_a_void_out_once(
    start: Start,
    database: Database,
    answers: UsageAnswers,
    messaging: Messaging,
    tenant: TenantKey,
) -> None:
    ledger = Ledger(tenant)
    first = await start()
    await send(messaging, ledger.accept(*(Event("A", amount) for amount in ("1", "10", "100"))))
    await counted(database, 3)
    await all_acknowledged(messaging)
    first.kill()
    await first.communicate()
    paused = await start(USAGEFLOW_TEST_PAUSE_AFTER_COMMIT_S="60")
    voids = ledger.take_back(ledger.events[1])
    await send(messaging, voids)
    await counted(database, 2)
    paused.kill()
    await paused.communicate()
    await start()
    await send(messaging, voids, ".again")
    await send(messaging, ledger.accept(Event("A", "1000")))
    await counted(database, 3)
    assert await total(answers, tenant, "A") == 1101


async def test_a_redelivered_message_is_acknowledged_and_counted_once(
    start: Start,
    database: Database,
    answers: UsageAnswers,
    messaging: Messaging,
    tenant: TenantKey,
) -> None:
    await start()
    made = [batch(tenant, Event("A")) for _ in range(20)]
    for copy in ("", ".1", ".2"):
        for one in made:
            await send(messaging, one, copy)
    await all_acknowledged(messaging)
    await counted(database, 20)
    assert await total(answers, tenant, "A") == 20


async def test_two_replicas_share_the_stream_and_count_each_batch_once(
    start: Start,
    database: Database,
    answers: UsageAnswers,
    messaging: Messaging,
    tenant: TenantKey,
) -> None:
    await asyncio.gather(start(), start())
    made = [
        batch(tenant, *(Event("A", "0.1", f"user_{n % 7}") for n in range(50))) for _ in range(60)
    ]
    await asyncio.gather(*(send(messaging, one) for one in made))
    await asyncio.gather(*(send(messaging, one, ".again") for one in made))
    await all_acknowledged(messaging)
    await counted(database, 3000)
    assert await total(answers, tenant, "A") == 300
    async with database.transaction() as connection:
        query = text("SELECT count(*) FROM customers_seen")
        assert (await connection.execute(query)).scalar_one() == 7
