"""Drops raw events that are older than their organization wants them kept.

Age counts from the closing of the segment, so an event is kept at least as long as it should be,
and its idempotency key with it. A segment that nobody wants is dropped whole; out of one that
somebody still wants, the others' events are deleted in small steps. Nobody writes to either, so no
writer waits. Usage and invoices that were made of the events stay.

What goes the database notes in the same transaction (event_drops in tables.py): a list of the
events behind an invoice tells that some are missing.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import asyncpg
import grpc
import structlog
from prometheus_client import Counter
from pydantic import SecretStr
from usageflow.accounts.v1 import accounts_pb2, accounts_pb2_grpc

from services.kit import clock
from services.kit.errors import from_rpc_error
from services.kit.grpc_client import internal_metadata
from services.kit.ids import organization_uuid

log = structlog.get_logger()

RETENTION_MIN = timedelta(days=90)
RETENTION_DEFAULT = timedelta(days=400)
DELETED_AT_A_TIME = 10_000
REST_S = 0.05
LOCK_TIMEOUT_MS = 500
ASK_TIMEOUT_S = 5.0
ORGANIZATIONS_AT_A_TIME = 1_000

_OLD_SEGMENTS = """
SELECT segment, close_time FROM event_segments
WHERE close_time < $1 AND index_time IS NOT NULL AND NOT EXISTS (
    SELECT FROM event_batches
    WHERE event_batches.segment = event_segments.segment AND apply_time IS NULL
)
ORDER BY segment
"""

# One step down the index for each organization, however many events it has.
_ORGANIZATIONS = """
WITH RECURSIVE found AS (
    (SELECT organization_id FROM events_{0} ORDER BY organization_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT e.organization_id FROM events_{0} AS e
        WHERE e.organization_id > found.organization_id ORDER BY e.organization_id LIMIT 1
    ) FROM found WHERE found.organization_id IS NOT NULL
)
SELECT organization_id FROM found WHERE organization_id IS NOT NULL
"""
_DELETE = """
DELETE FROM events_{0} WHERE ctid = ANY (
    ARRAY(SELECT ctid FROM events_{0} WHERE organization_id = $1 LIMIT $2)
)
"""
_DELETE_BATCHES = """
DELETE FROM event_batches WHERE batch_id = ANY (
    ARRAY(SELECT batch_id FROM event_batches WHERE segment = $1 LIMIT $2)
)
"""

_EVENTS = Counter("usageflow_ingest_events_expired", "Raw events dropped by retention", ["way"])

_Connection = Any  # asyncpg.Connection, whose methods have no types


class RetentionSource(Protocol):
    """Who knows how long organizations want their events kept."""

    async def ask(self) -> Mapping[UUID, timedelta]:
        """By organization; one that is not in it has RETENTION_DEFAULT. UnavailableError."""


class AccountsRetention:
    """Asks accounts."""

    def __init__(self, channel: grpc.aio.Channel, internal_token: SecretStr) -> None:
        self._accounts = accounts_pb2_grpc.AccountsInternalServiceStub(channel)
        self._token = internal_token

    async def ask(self) -> Mapping[UUID, timedelta]:
        """All organizations, page by page."""
        kept: dict[UUID, timedelta] = {}
        request = accounts_pb2.ListOrganizationsRequest(page_size=ORGANIZATIONS_AT_A_TIME)
        try:
            while True:
                response = await self._accounts.ListOrganizations(
                    request, timeout=ASK_TIMEOUT_S, metadata=internal_metadata(self._token)
                )
                for organization in response.organizations:
                    days = timedelta(days=organization.settings.event_retention_days)
                    kept[organization_uuid(organization.id)] = days
                request.page_token = response.next_page_token
                if not request.page_token:
                    return kept
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error


class Retention:
    """One round looks at every segment that is old enough for anybody."""

    def __init__(self, source: RetentionSource) -> None:
        self._source = source

    async def enforce(self, connection: _Connection) -> None:
        """Drop what nobody wants any more. UnavailableError: accounts is away."""
        # The database refuses what is younger (trigger keep_events).
        asked = await self._source.ask()
        kept = {organization: max(days, RETENTION_MIN) for organization, days in asked.items()}
        now = clock.now()
        shortest = min(kept.values(), default=RETENTION_DEFAULT)
        offset = f"{clock.offset().total_seconds():.0f} seconds"
        await connection.execute("SELECT set_config('usageflow.clock_offset', $1, false)", offset)
        for segment, close_time in await connection.fetch(_OLD_SEGMENTS, now - shortest):
            age = now - close_time
            rows = await connection.fetch(_ORGANIZATIONS.format(segment))
            organizations = [UUID(bytes=row[0].bytes) for row in rows]
            expired = [
                organization
                for organization in organizations
                if kept.get(organization, RETENTION_DEFAULT) <= age
            ]
            if len(expired) == len(organizations):
                await _drop(connection, segment)
            else:
                for organization in expired:
                    await _delete(connection, segment, organization)


async def _delete(connection: _Connection, segment: int, organization: UUID) -> None:
    """One organization's events, in small steps."""
    deleted = 0
    statement = _DELETE.format(segment)
    async for step in _steps(connection, statement, organization):
        deleted += step
    _EVENTS.labels("deleted").inc(deleted)
    log.info("events_deleted", segment=segment, organization=str(organization), events=deleted)


async def _drop(connection: _Connection, segment: int) -> None:
    """A whole segment; then the batches that it held."""
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
            count = await connection.fetchval(
                "DELETE FROM event_segments WHERE segment = $1 RETURNING event_count", segment
            )
            await connection.execute(f"DROP TABLE events_{segment}")
    except asyncpg.LockNotAvailableError:
        log.info("segment_busy", segment=segment)
        return
    _EVENTS.labels("dropped").inc(count or 0)
    log.info("segment_dropped", segment=segment, events=count)
    async for _step in _steps(connection, _DELETE_BATCHES, segment):
        pass


async def _steps(connection: _Connection, statement: str, value: object) -> AsyncIterator[int]:
    """Runs a statement that deletes at most DELETED_AT_A_TIME rows until it deletes none."""
    while True:
        tag: str = await connection.execute(statement, value, DELETED_AT_A_TIME)
        deleted = int(tag.split()[-1])
        if not deleted:
            return
        yield deleted
        await asyncio.sleep(REST_S)
