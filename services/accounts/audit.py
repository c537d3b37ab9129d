"""The audit log: what was done to an organization, by whom, as every service tells it."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from nats.aio.msg import Msg

from services.accounts import audit_repository
from services.accounts.audit_repository import AuditFilter, Entry, Place
from services.kit import audit, pages
from services.kit.audit import AuditEvent
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldChecks

log = structlog.get_logger()

BATCH_MAX = 100
TARGET_CHARACTERS_MAX = 255
VERIFIED_AT_ONCE = 1_000
VERIFIED_MAX = 20_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ACTION = re.compile(r"[a-z_]{1,40}\.([a-z_]{1,40}|\*)")


class AuditLog:
    """The use cases. Each is one transaction, committed before it returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, events: Sequence[AuditEvent]) -> int:
        """Keep what other services tell, once each; how many were new.

        What tells of an organization that nobody knows is not kept, and logged: it stays in its
        sender's outbox, where an operator finds it.
        """
        async with self._database.transaction() as connection:
            told = {event.tenant.organization_id for event in events}
            known = await audit_repository.known_organizations(connection, told)
            if unknown := sorted(told - known):
                log.error("audit_of_unknown_organization", organization_ids=unknown)
            ours = [event for event in events if event.tenant.organization_id in known]
            return await audit_repository.insert_events(connection, ours)

    async def list(
        self,
        tenant: TenantKey,
        wanted: AuditFilter,
        page_size: int,
        page_token: str,
    ) -> tuple[list[Entry], str]:
        """A page of the tenant's events, newest first, and the next page's token ("": the last).

        InvalidArgumentError names all wrong fields.
        """
        limit = pages.page_limit(page_size)
        before = _place(page_token)
        wanted = _checked(wanted)
        async with self._database.transaction() as connection:
            found = await audit_repository.list_events(
                connection, tenant, wanted, before=before, limit=limit + 1
            )
        if len(found) <= limit:
            return found, ""
        last = found[limit - 1]
        return found[:limit], pages.encode_token(last.event.time.isoformat(), last.event.id)

    async def verify(self, tenant: TenantKey, after_number: int) -> "Verification":
        """Work the tenant's chain out again, from the entry after `after_number` on, at most
        VERIFIED_MAX entries. InvalidArgumentError.
        """
        checks = FieldChecks()
        checks.require(after_number >= 0, "after", "must be 0 or the number of an entry")
        checks.done()
        number, last_hash = 0, bytes(32)
        verified = 0
        async with self._database.transaction() as connection:
            head_number, head_hash = await audit_repository.head_of(connection, tenant)
            if after_number:
                start = await audit_repository.chain_after(connection, tenant, after_number - 1, 1)
                if start:
                    number, last_hash = start[0].number, start[0].hash
        while verified < VERIFIED_MAX and number < head_number:
            async with self._database.transaction() as connection:
                entries = await audit_repository.chain_after(
                    connection, tenant, number, VERIFIED_AT_ONCE
                )
            for entry in entries:
                if not follows(entry, number, last_hash):
                    return Verification(number, head_number, last_hash, broken_number=number + 1)
                number, last_hash = entry.number, entry.hash
            if not entries:
                return Verification(number, head_number, last_hash, broken_number=number + 1)
            verified += len(entries)
        if number == head_number and last_hash != head_hash:
            return Verification(number, head_number, last_hash, broken_number=number)
        return Verification(number, head_number, last_hash)


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found of a chain up to the entry `number`, whose hash is `hash`; the chain ends with
    `head_number`. `broken_number`: the first entry that is not what it was or is missing; None: all
    are as they were.
    """

    number: int
    head_number: int
    hash: bytes
    broken_number: int | None = None


def follows(entry: Entry, number: int, last_hash: bytes) -> bool:
    """Whether it is the entry that was added after the one with this number and hash."""
    after = (entry.number, entry.previous_hash) == (number + 1, last_hash)
    return after and entry.hash == entry_hash(entry)


def entry_hash(entry: Entry) -> bytes:
    """SHA-256 of the hash before and of the content as netstrings (migration 0006)."""
    event = entry.event
    micros = (event.time - _EPOCH) // timedelta(microseconds=1)
    parts = (
        str(entry.number),
        event.id,
        event.tenant.organization_id,
        event.tenant.mode,
        event.action,
        event.target_id,
        event.key_id,
        event.request_id,
        str(micros),
        event.details_json,
    )
    encoded = (part.encode() for part in parts)
    content = b"".join(b"%d:%b," % (len(part), part) for part in encoded)
    return hashlib.sha256(entry.previous_hash + content).digest()


class AuditConsumer:
    """Handles batches of AuditEvent messages; returning means that all may be acknowledged."""

    def __init__(self, audit_log: AuditLog) -> None:
        self._audit_log = audit_log

    async def handle(self, messages: Sequence[Msg]) -> None:
        """Keep the events, in one transaction."""
        events = [event for message in messages if (event := _read(message.data)) is not None]
        if events:
            await self._audit_log.take(events)


def _read(payload: bytes) -> AuditEvent | None:
    """The event; None when it can't be read.

    Such a message is acknowledged, so that it does not come back for ever, and stays in its
    sender's outbox.
    """
    try:
        return audit.from_bytes(payload)
    except ValueError as error:
        log.error(  # noqa: TRY400 (the traceback would show the message)
            "audit_event_unreadable", error=type(error).__name__, payload_bytes=len(payload)
        )
        return None


def _checked(wanted: AuditFilter) -> AuditFilter:
    """The filter with a group of actions recognized. InvalidArgumentError."""
    checks = FieldChecks()
    checks.require(
        not wanted.action or _ACTION.fullmatch(wanted.action) is not None,
        "action",
        'must be an action such as "webhook.created", or a group of them: "webhook.*"',
    )
    for name, value in (("targetId", wanted.target_id), ("keyId", wanted.key_id)):
        short = len(value) <= TARGET_CHARACTERS_MAX and "\x00" not in value
        checks.require(short, name, f"must be an id of at most {TARGET_CHARACTERS_MAX} characters")
    ordered = (
        wanted.from_time is None or wanted.to_time is None or wanted.from_time < wanted.to_time
    )
    checks.require(ordered, "to", "must be after from")
    checks.done()
    if not wanted.action.endswith("*"):
        return wanted
    return AuditFilter(
        group=wanted.action.removesuffix("*"),
        target_id=wanted.target_id,
        key_id=wanted.key_id,
        from_time=wanted.from_time,
        to_time=wanted.to_time,
    )


def _place(page_token: str) -> Place | None:
    """Where a page begins, from the token of the page before."""
    if not page_token:
        return None
    time_text, event_id = pages.decode_token(page_token, 2)
    try:
        time = datetime.fromisoformat(time_text)
    except ValueError:
        raise pages.invalid_token() from None
    if time.tzinfo is None or not event_id.startswith("aud_"):
        raise pages.invalid_token()
    return time, event_id
