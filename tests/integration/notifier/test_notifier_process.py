"""notifier as a process, fed over real NATS, killed and started again."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import text
from usageflow.common.v1 import common_pb2
from usageflow.events.v1 import events_pb2

from services.kit.database import Database
from services.kit.ids import new_id
from services.kit.messaging import BILLING, Messaging
from tests.integration.notifier.conftest import ACME, WAIT_S, Receiver, World, make_settings

SUBJECT = "usageflow.billing.event"
INBOX = "usageflow.inbox.notifier"
START_S = 20.0


class Process:
    """`python -m services.notifier` with short leases."""

    def __init__(self, database_url: str, nats_url: str) -> None:
        self._environment = {
            "PATH": os.environ["PATH"],
            "USAGEFLOW_DATABASE_URL": database_url,
            "USAGEFLOW_NATS_URL": nats_url,
            "USAGEFLOW_INTERNAL_TOKEN": "t" * 32,
            "USAGEFLOW_WEBHOOK_SECRETS_KEY": "s" * 32,
            "USAGEFLOW_ACCOUNTS_ADDRESS": "127.0.0.1:1",
            "USAGEFLOW_WEBHOOK_ALLOW_PRIVATE": "true",
            "USAGEFLOW_WEBHOOK_RETRY_DELAYS_S": "0,0.1,0.1",
            "USAGEFLOW_WEBHOOK_TIMEOUT_S": "1",
            "USAGEFLOW_WEBHOOK_LEASE_S": "2",
            "USAGEFLOW_WEBHOOK_POLL_S": "0.1",
            "USAGEFLOW_LOG_LEVEL": "debug",
        }
        self._process: asyncio.subprocess.Process | None = None
        self.log = b""

    async def start(self) -> None:
        """Start and wait until it says that it is ready."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.notifier",
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_S):
            async for line in self._process.stdout:
                self.log += line
                if b'"ready"' in line:
                    return
        raise AssertionError(self.log.decode())

    async def end(self, number: signal.Signals) -> int:
        """Send a signal, wait for the end, return the exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        output, _ = await asyncio.wait_for(self._process.communicate(), START_S)
        self.log += output
        assert self._process.returncode is not None
        return self._process.returncode


@pytest.fixture
async def messaging(nats_url: str) -> AsyncIterator[Messaging]:
    """The sender's side of NATS."""
    messaging = await Messaging.connect(nats_url, "test")
    yield messaging
    await messaging.close()


@pytest.fixture
async def secret(database: Database, database_url: str, receiver: Receiver) -> str:
    """The secret of an endpoint at the receiver."""
    world = World(database, make_settings(database_url))
    _, secret = await world.endpoint(receiver.url)
    await world.sender.close()
    return secret


@pytest.fixture
async def process(database: Database, database_url: str, nats_url: str) -> AsyncIterator[Process]:
    """A process, not yet started; killed at the end if it still runs."""
    process = Process(database_url, nats_url)
    yield process
    await process.end(signal.SIGKILL)


def billing_event() -> events_pb2.BillingEvent:
    created = Timestamp()
    created.GetCurrentTime()
    return events_pb2.BillingEvent(
        id=new_id("whevt"),
        organization_id=ACME.organization_id,
        mode=common_pb2.MODE_TEST,
        type="invoice.created",
        create_time=created,
        data_json='{"invoiceId":"inv_private"}',
    )


async def publish(messaging: Messaging, event: events_pb2.BillingEvent, suffix: str = "") -> None:
    await messaging.publish(SUBJECT, event.SerializeToString(), event.id + suffix)


async def lacks(messaging: Messaging, event: events_pb2.BillingEvent) -> bool:
    """Whether the process says that it lacks the event."""
    request = events_pb2.FindMissingMessagesRequest(message_ids=[event.id])
    answer = await messaging.request(INBOX, request.SerializeToString(), WAIT_S)
    return bool(events_pb2.FindMissingMessagesResponse.FromString(answer).missing_message_ids)


async def deliveries(database: Database) -> list[tuple[str, int]]:
    async with database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT status, attempt_count FROM deliveries ORDER BY id")
        )
        return [(row.status, row.attempt_count) for row in rows]


async def test_a_billing_event_from_nats_becomes_one_verified_webhook(
    process: Process, messaging: Messaging, receiver: Receiver, secret: str, database: Database
) -> None:
    await process.start()
    event = billing_event()
    assert await lacks(messaging, event)
    for suffix in ("", ".again", ".and-again"):
        await publish(messaging, event, suffix)
    received = await receiver.next()
    assert received.webhook_id == event.id
    assert received.verified_by(secret)["data"] == {"invoiceId": "inv_private"}
    assert not await lacks(messaging, event)
    after = billing_event()
    await publish(messaging, after)
    assert (await receiver.next()).webhook_id == after.id
    assert await process.end(signal.SIGTERM) == 0
    assert await deliveries(database) == [("succeeded", 1)] * 2
    for private in (secret, "inv_private", receiver.url, "t" * 32):
        assert private not in process.log.decode()


async def test_an_unreadable_message_does_not_hold_up_the_others(
    process: Process, messaging: Messaging, receiver: Receiver, secret: str
) -> None:
    await process.start()
    bad = billing_event()
    bad.data_json = "not json"
    await publish(messaging, bad)
    await messaging.publish(SUBJECT, b"\xff\xff", "garbage")
    good = billing_event()
    await publish(messaging, good)
    assert (await receiver.next()).webhook_id == good.id
    assert await lacks(messaging, bad)


async def test_a_delivery_of_a_killed_process_is_sent_again_with_the_same_id(
    process: Process, messaging: Messaging, receiver: Receiver, secret: str, database: Database
) -> None:
    """kill -9 between the receiver's having it and the attempt's being recorded."""

    async def never(_request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    receiver.answers = [never]
    await process.start()
    event = billing_event()
    await publish(messaging, event)
    first = await receiver.next()
    await process.end(signal.SIGKILL)
    assert await deliveries(database) == [("pending", 0)]
    await process.start()
    second = await receiver.next()
    assert first.webhook_id == second.webhook_id == event.id
    assert second.verified_by(secret)
    assert await process.end(signal.SIGTERM) == 0
    assert await deliveries(database) == [("succeeded", 1)]


async def test_an_event_published_while_no_notifier_runs_arrives_when_it_starts(
    process: Process, messaging: Messaging, receiver: Receiver, secret: str
) -> None:
    event = billing_event()
    await messaging.ensure_consumer(BILLING, "notifier")
    await publish(messaging, event)
    await process.start()
    assert (await receiver.next()).webhook_id == event.id
