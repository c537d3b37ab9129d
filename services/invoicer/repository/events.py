"""Billing events in the outbox."""

from collections.abc import Iterable

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.billing_events import SUBJECT, BillingEvent
from services.invoicer.tables import outbox


async def add_events(connection: AsyncConnection, events: Iterable[BillingEvent]) -> None:
    """Let the events go out when, and only when, the caller's transaction commits."""
    rows = [
        {"message_id": event.id, "subject": SUBJECT, "payload": event.payload} for event in events
    ]
    if rows:
        await connection.execute(insert(outbox), rows)
