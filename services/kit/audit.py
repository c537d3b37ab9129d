"""What was done to an organization, and by whom: every service tells accounts, which keeps it.

An entry is written to an outbox in the transaction that does what it tells of: nothing is done
without its entry, and no entry tells of what was not done.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection
from usageflow.events.v1 import events_pb2

from services.kit import clock, context
from services.kit.auth import MODE_NAMES, MODE_NUMBERS
from services.kit.database import Database
from services.kit.ids import new_id
from services.kit.messaging import Messaging
from services.kit.outbox import OutboxRelay, TableOutbox, add_to_outbox
from services.kit.tenant import TenantKey

SUBJECT = "usageflow.audit.event"
CONSUMER = "accounts"
DETAILS_BYTES_MAX = 128 * 1024


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing that was done.

    `action` is what to whom, "webhook.created"; `target_id` which one, "" when it was several;
    `key_id` the API key of who did it, "" for UsageFlow itself; `details_json` a JSON object that
    shows no secret.
    """

    id: str
    tenant: TenantKey
    action: str
    target_id: str
    key_id: str
    request_id: str
    time: datetime
    details_json: str


def audit_event(
    tenant: TenantKey,
    action: str,
    *,
    target_id: str = "",
    key_id: str = "",
    details: Mapping[str, object],
) -> AuditEvent:
    """What is done now, in the running call. ValueError: the details are too large."""
    details_json = msgspec.json.encode(details)
    if len(details_json) > DETAILS_BYTES_MAX:
        raise ValueError(f"details of an audit event have at most {DETAILS_BYTES_MAX} bytes")
    return AuditEvent(
        id=new_id("aud"),
        tenant=tenant,
        action=action,
        target_id=target_id,
        key_id=key_id,
        request_id=context.request_id.get(),
        time=clock.now(),
        details_json=details_json.decode(),
    )


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, object]:
    """The details of a change: `{"before": {..}, "after": {..}}` of what differs; {}: nothing."""
    names = [name for name in after if before.get(name) != after[name]]
    if not names:
        return {}
    return {
        "before": {name: before.get(name) for name in names},
        "after": {name: after[name] for name in names},
    }


async def add_audit_event(connection: AsyncConnection, outbox: Table, event: AuditEvent) -> None:
    """Write an entry in the caller's transaction; audit_relay() sends it within a second."""
    await add_to_outbox(
        connection, outbox, message_id=event.id, subject=SUBJECT, payload=to_bytes(event)
    )


def audit_relay(database: Database, outbox: Table, messaging: Messaging) -> OutboxRelay:
    """What sends a service's entries to accounts.

    They are anyone's to send: nobody waits for them, so no transaction has to wake its relay.
    """
    return OutboxRelay(TableOutbox(database, outbox, anyones=True), messaging, CONSUMER)


def to_bytes(event: AuditEvent) -> bytes:
    """The message of an entry."""
    time = Timestamp()
    time.FromDatetime(event.time)
    return events_pb2.AuditEvent(
        id=event.id,
        organization_id=event.tenant.organization_id,
        mode=MODE_NUMBERS[event.tenant.mode],
        action=event.action,
        target_id=event.target_id,
        key_id=event.key_id,
        request_id=event.request_id,
        time=time,
        details_json=event.details_json,
    ).SerializeToString()


def from_bytes(payload: bytes) -> AuditEvent:
    """The entry in a message. ValueError when it is none."""
    try:
        message = events_pb2.AuditEvent.FromString(payload)
        msgspec.json.decode(message.details_json, type=dict[str, object])
        return AuditEvent(
            id=message.id,
            tenant=TenantKey(message.organization_id, MODE_NAMES[message.mode]),
            action=message.action,
            target_id=message.target_id,
            key_id=message.key_id,
            request_id=message.request_id,
            time=message.time.ToDatetime(UTC),
            details_json=message.details_json,
        )
    except (DecodeError, msgspec.DecodeError, KeyError, OverflowError) as error:
        raise ValueError("not an audit event") from error
