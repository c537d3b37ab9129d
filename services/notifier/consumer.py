"""Translates what comes from NATS (stream USAGEFLOW_BILLING) for the service."""

from datetime import UTC

import structlog
from google.protobuf.message import DecodeError
from nats.aio.msg import Msg
from usageflow.events.v1 import events_pb2

from services.kit.auth import MODE_NAMES
from services.kit.database import TenantKey
from services.notifier.domain import WebhookEvent, webhook_body
from services.notifier.service import Notifier

log = structlog.get_logger()

BATCH_MAX = 100


class BillingConsumer:
    """Handles batches of BillingEvent messages; returning means that all may be acknowledged."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier

    async def handle(self, messages: list[Msg]) -> None:
        """Store the events and their deliveries, in one transaction."""
        events = [event for message in messages if (event := _read(message.data)) is not None]
        if events:
            await self._notifier.take_events(events)


def _read(payload: bytes) -> WebhookEvent | None:
    """The event; None when it can't be read.

    Such a message is acknowledged, so that it does not come back for ever, but the inbox does not
    have it: it stays in its sender's outbox, where an operator finds it.
    """
    try:
        message = events_pb2.BillingEvent.FromString(payload)
        create_time = message.create_time.ToDatetime(UTC)
        return WebhookEvent(
            id=message.id,
            tenant=TenantKey(message.organization_id, MODE_NAMES[message.mode]),
            type=message.type,
            create_time=create_time,
            body=webhook_body(message.type, create_time, message.data_json),
        )
    except (DecodeError, ValueError, KeyError, OverflowError) as error:
        log.error(  # noqa: TRY400 (the traceback would show the message)
            "billing_event_unreadable", error=type(error).__name__, payload_bytes=len(payload)
        )
        return None
