"""Billing events in the outbox."""

from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.billing_events import SUBJECT, BillingEvent
from services.invoicer.tables import outbox
from services.kit.outbox import add_to_outbox


async def add_event(connection: AsyncConnection, event: BillingEvent) -> None:
    """Let the event go out when, and only when, the caller's transaction commits."""
    await add_to_outbox(
        connection, outbox, message_id=event.id, subject=SUBJECT, payload=event.payload
    )
