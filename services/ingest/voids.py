"""Takes events out of what is billed.

A void is a fact beside its event, which stays as it was accepted. It travels to aggregator like
events do: in a batch of its own, through the outbox, once; and like theirs the watermark waits for
it, so that no period is invoiced over a void that aggregator lacks.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from uuid import UUID

import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection
from usageflow.common.v1 import common_pb2

from services.ingest import voids_repository
from services.ingest.domain import Tenant
from services.ingest.group import BATCH_BYTES_MAX
from services.ingest.tables import audit_outbox
from services.ingest.voids_repository import Void, VoidableEvent
from services.kit import usage_token
from services.kit.audit import add_audit_event, audit_event
from services.kit.auth import MODE_NAMES
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldChecks
from services.kit.events import parse_event_id
from services.kit.ids import new_uuid

log = structlog.get_logger()

EVENTS_PER_VOID_MAX = 1_000
REASON_CHARS_MAX = 500
# An event in a message besides its metadata: metric 128, customer 1,020, amount 64, id, time.
EVENT_BYTES_MAX = 1_400

_has_control = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]").search

_VOIDS = Counter("usageflow_ingest_voids", "Events asked to be voided", ["status"])


class VoidStatus(IntEnum):
    """What became of an event that was to be voided; the numbers are those of the proto."""

    VOIDED = 1
    ALREADY_VOIDED = 2
    NOT_FOUND = 3


@dataclass(frozen=True, slots=True)
class VoidReceipt:
    """What became of one event; `void_time` is None when there is no such event."""

    event_id: str
    status: VoidStatus
    void_time: datetime | None = None


class Voids:
    """The use case; whoever calls has been authenticated."""

    def __init__(self, database: Database, wake_relay: Callable[[], None]) -> None:
        """`wake_relay` is called after a commit that has made a batch of voids."""
        self._database = database
        self._wake_relay = wake_relay

    async def void(
        self, tenant: Tenant, event_ids: Sequence[str], reason: str, *, key_id: str
    ) -> tuple[list[VoidReceipt], str]:
        """Void the tenant's events: a receipt for each id, in order, and a usage token.

        InvalidArgumentError names what is wrong. UnavailableError: perhaps they are void; the same
        again is safe.
        """
        _check(event_ids, reason)
        parsed = {text: parse_event_id(text) for text in event_ids}
        wanted = {event_id for event_id in parsed.values() if event_id is not None}
        async with self._database.transaction() as connection:
            await voids_repository.prefer_indexes(connection)
            found = await voids_repository.find_voidable(connection, tenant, wanted)
            batches = _in_batches(found)
            if batches:
                await voids_repository.insert_voids(
                    connection, tenant, batches, key_id=key_id, reason=reason
                )
            voids = await voids_repository.find_voids(connection, tenant, wanted)
            ours = set(batches.values())
            made = [void for void in voids.values() if void.batch_id in ours]
            if made:
                await _note(connection, tenant, made, key_id, reason)
        self._tell(tenant, key_id, made)
        receipts = list(_receipts(event_ids, parsed, voids, ours))
        for receipt in receipts:
            _VOIDS.labels(receipt.status.name).inc()
        return receipts, _token(voids.values())

    def _tell(self, tenant: Tenant, key_id: str, made: Sequence[Void]) -> None:
        if made:
            log.info(
                "events_voided",
                organization_id=tenant.organization_id,
                events=len(made),
                key_id=key_id,
            )
            self._wake_relay()


async def _note(
    connection: AsyncConnection, tenant: Tenant, made: Sequence[Void], key_id: str, reason: str
) -> None:
    """One entry of the audit log a call, however many events it has voided."""
    event_ids = sorted(f"evt_{void.event_id.hex()}" for void in made)
    voided = audit_event(
        TenantKey(tenant.organization_id, MODE_NAMES[common_pb2.Mode.ValueType(tenant.mode)]),
        "event.voided",
        target_id=event_ids[0] if len(event_ids) == 1 else "",
        key_id=key_id,
        details={"eventIds": event_ids, "reason": reason},
    )
    await add_audit_event(connection, audit_outbox, voided)


def _check(event_ids: Sequence[str], reason: str) -> None:
    checks = FieldChecks()
    checks.require(
        1 <= len(event_ids) <= EVENTS_PER_VOID_MAX,
        "eventIds",
        f"must be from 1 to {EVENTS_PER_VOID_MAX} ids",
    )
    checks.require(
        len(reason) <= REASON_CHARS_MAX and not _has_control(reason),
        "reason",
        f"must be at most {REASON_CHARS_MAX} characters without control characters",
    )
    checks.done()


def _in_batches(found: Iterable[VoidableEvent]) -> dict[bytes, UUID]:
    """Which batch each void travels in: a new one whenever a message would be too large."""
    batches: dict[bytes, UUID] = {}
    room, batch_id = 0, new_uuid()
    for event_id, metadata_bytes in found:
        size = EVENT_BYTES_MAX + metadata_bytes
        if size > room:
            room, batch_id = BATCH_BYTES_MAX, new_uuid()
        room -= size
        batches[event_id] = batch_id
    return batches


def _receipts(
    event_ids: Iterable[str],
    parsed: dict[str, bytes | None],
    voids: dict[bytes, Void],
    ours: set[UUID],
) -> Iterable[VoidReceipt]:
    """Of an id that was given twice, the first voids the event and the second finds it void."""
    told: set[str] = set()
    for text in event_ids:
        event_id = parsed[text]
        void = voids.get(event_id) if event_id is not None else None
        if void is None:
            yield VoidReceipt(text, VoidStatus.NOT_FOUND)
            continue
        new = void.batch_id in ours and text not in told
        told.add(text)
        status = VoidStatus.VOIDED if new else VoidStatus.ALREADY_VOIDED
        yield VoidReceipt(text, status, void.void_time)


def _token(voids: Iterable[Void]) -> str:
    """A usage query that carries it no longer counts these events."""
    batches = {void.batch_id: void.void_time for void in voids}
    return usage_token.encode(list(batches), max(batches.values())) if batches else ""
