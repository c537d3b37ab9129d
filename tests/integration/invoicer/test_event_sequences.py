"""Webhooks may arrive in any order: what happened to one thing is numbered in its data."""

import json
from collections import defaultdict

from sqlalchemy import text
from usageflow.events.v1 import events_pb2

from tests.integration.invoicer.stand_ins import GRACE, World, utc

JANUARY, FEBRUARY = utc("2026-01-01"), utc("2026-02-01")


async def test_the_sequence_of_an_object_grows_with_each_of_its_events(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + GRACE)
    await world.close_all()
    (invoice,) = await world.all_invoices()
    for _ in range(3):
        await world.invoices.fail_invoice(world.tenant, invoice.id)
    await world.subscriptions.resume_subscription(world.tenant, subscription.id)
    await world.invoices.pay_invoice(world.tenant, invoice.id)
    await world.subscriptions.cancel_subscription(world.tenant, subscription.id)

    sequences: dict[str, list[tuple[str, int]]] = defaultdict(list)
    async with world.database.transaction() as connection:
        rows = await connection.execute(text("SELECT payload FROM outbox ORDER BY message_id"))
        for payload in rows.scalars():
            event = events_pb2.BillingEvent.FromString(payload)
            data = json.loads(event.data_json)
            about = "invoice" if event.type.startswith("invoice.") else "subscription"
            sequences[about].append((event.type, data["sequence"]))
    assert sequences["invoice"] == [
        ("invoice.created", 1),
        ("invoice.failed", 2),
        ("invoice.failed", 3),
        ("invoice.failed", 4),
        ("invoice.paid", 5),
    ]
    types, numbers = zip(*sequences["subscription"], strict=True)
    assert types == (
        "subscription.created",
        "subscription.suspended",
        "subscription.changed",
        "subscription.cancelled",
    )
    assert list(numbers) == sorted(set(numbers))
