"""Customers come into being with their first usage, once, over real NATS."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from usageflow.common.v1 import common_pb2
from usageflow.events.v1 import events_pb2

from services.invoicer.checks import CustomerInput
from services.invoicer.customers_seen import (
    BATCH_MAX,
    DURABLE,
    INBOX_CONSUMER,
    CustomersSeenHandler,
)
from services.invoicer.service.paging import Page
from services.invoicer.tables import inbox
from services.kit.database import TenantKey
from services.kit.ids import new_id
from services.kit.inbox import serve_inbox
from services.kit.messaging import SENT_AGAIN, USAGE, Messaging
from tests.integration.invoicer.stand_ins import World, new_tenant
from tests.waiting import until

SUBJECT = "usageflow.usage.customers_seen"
WAIT_S = 20


@asynccontextmanager
async def consuming(world: World, nats_url: str) -> AsyncIterator[Messaging]:
    """The connection of an invoicer that takes CustomersSeen messages."""
    messaging = await Messaging.connect(nats_url, "invoicer")
    await serve_inbox(world.database, inbox, messaging, INBOX_CONSUMER)
    handler = CustomersSeenHandler(world.database)
    consumer = messaging.consume(USAGE, DURABLE, handler.handle, batch_max=BATCH_MAX)
    running = asyncio.create_task(consumer.run())
    try:
        yield messaging
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await messaging.close()


def seen(tenant: TenantKey, *customer_ids: str) -> bytes:
    message = events_pb2.CustomersSeen(
        organization_id=tenant.organization_id,
        mode=common_pb2.MODE_TEST,
        customer_ids=customer_ids,
    )
    return message.SerializeToString()


async def until_taken(messaging: Messaging, message_id: str) -> None:
    """Ask the inbox, as a sender does, until it has the message."""
    request = events_pb2.FindMissingMessagesRequest(message_ids=[message_id]).SerializeToString()

    async def taken() -> bool:
        answer = await messaging.request("usageflow.inbox.invoicer", request, WAIT_S)
        return not events_pb2.FindMissingMessagesResponse.FromString(answer).missing_message_ids

    await until(message_id, taken, WAIT_S)


async def ids(world: World, tenant: TenantKey) -> set[str]:
    found, _ = await world.customers.list_customers(tenant, Page(100))
    return {customer.id for customer in found}


async def test_customers_come_into_being_and_known_ones_stay_as_they_are(
    world: World, nats_url: str
) -> None:
    known = CustomerInput("user_123", name="Ada", time_zone="Asia/Kathmandu")
    ada, _ = await world.customers.put_customer(world.tenant, known)
    other = new_tenant()
    first, second = new_id("seen"), new_id("seen")
    async with consuming(world, nats_url) as messaging:
        named = seen(world.tenant, "user_123", "user_456", "käufer 7", "bad\x00id")
        await messaging.publish(SUBJECT, named, first)
        await messaging.publish(SUBJECT, seen(other, "user_123"), second)
        await until_taken(messaging, first)
        await until_taken(messaging, second)
    assert await ids(world, world.tenant) == {"user_123", "user_456", "käufer 7"}
    assert await ids(world, other) == {"user_123"}
    assert await world.customers.get_customer(world.tenant, "user_123") == ada


async def test_a_message_that_is_sent_again_is_applied_once(world: World, nats_url: str) -> None:
    """A sender that sends again puts the time behind the message's id."""
    message_id = new_id("seen")
    async with consuming(world, nats_url) as messaging:
        await messaging.publish(SUBJECT, seen(world.tenant, "user_1"), message_id)
        await until_taken(messaging, message_id)
        await messaging.publish(
            SUBJECT, seen(world.tenant, "user_1"), f"{message_id}{SENT_AGAIN}1700000000000000000"
        )
        last = new_id("seen")
        await messaging.publish(SUBJECT, seen(world.tenant, "user_2"), last)
        await until_taken(messaging, last)
    async with world.database.transaction() as connection:
        taken = await connection.execute(text("SELECT message_id FROM inbox ORDER BY 1"))
        assert set(taken.scalars()) == {message_id, last}
    assert await ids(world, world.tenant) == {"user_1", "user_2"}
