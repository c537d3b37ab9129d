"""invoicer hears of every customer once."""

import asyncio

from sqlalchemy import text
from usageflow.common.v1 import common_pb2
from usageflow.events.v1.events_pb2 import CustomersSeen

from services.aggregator.folder import Folder
from services.kit.database import Database, TenantKey
from tests.integration.aggregator.sending import Event, batch, mixed_batch, new_tenant


async def messages(database: Database) -> list[CustomersSeen]:
    """What is in the outbox."""
    async with database.transaction() as connection:
        query = text("SELECT subject, payload FROM outbox ORDER BY create_time, message_id")
        rows = (await connection.execute(query)).all()
    assert {row.subject for row in rows} <= {"usageflow.usage.customers_seen"}
    return [CustomersSeen.FromString(row.payload) for row in rows]


async def test_a_customer_is_told_of_once(
    database: Database, folder: Folder, told: list[str], tenant: TenantKey
) -> None:
    sent = batch(tenant, Event("A", "1", "b"), Event("A", "1", "a"), Event("A", "1", ""))
    await folder.apply([sent])
    # Another metric, another replica: new series of customers that are known.
    await folder.apply([sent, batch(tenant, Event("B", "1", "a"))])
    await Folder(database, lambda: told.append("other")).apply(
        [batch(tenant, Event("C", "1", "b"))]
    )
    assert await messages(database) == [
        CustomersSeen(
            organization_id=tenant.organization_id,
            mode=common_pb2.MODE_LIVE,
            customer_ids=["a", "b"],
        )
    ]
    assert told == ["told"]


async def test_each_organization_and_mode_has_its_own_customers(
    database: Database, folder: Folder
) -> None:
    acme = new_tenant()
    acme_test = TenantKey(acme.organization_id, "test")
    await folder.apply([mixed_batch({acme: [Event("A")], acme_test: [Event("A")]})])
    found = {(message.mode, tuple(message.customer_ids)) for message in await messages(database)}
    assert found == {
        (common_pb2.MODE_LIVE, ("user_1",)),
        (common_pb2.MODE_TEST, ("user_1",)),
    }


async def test_many_customers_are_told_of_in_several_messages(
    database: Database, folder: Folder, tenant: TenantKey
) -> None:
    customers = {f"user_{number}" for number in range(1201)}
    await folder.apply([batch(tenant, *(Event("A", "1", customer) for customer in customers))])
    found = await messages(database)
    assert sorted(len(message.customer_ids) for message in found) == [201, 500, 500]
    assert {customer for message in found for customer in message.customer_ids} == customers


async def test_replicas_that_see_a_customer_at_once_tell_of_it_once(
    database: Database, tenant: TenantKey
) -> None:
    replicas = [Folder(database, lambda: None) for _ in range(4)]
    customers = [f"user_{number}" for number in range(50)]
    await asyncio.gather(
        *(
            replica.apply([batch(tenant, *(Event(f"M{n}", "1", c) for c in customers))])
            for n, replica in enumerate(replicas)
        )
    )
    named = [c for message in await messages(database) for c in message.customer_ids]
    assert sorted(named) == sorted(customers)
