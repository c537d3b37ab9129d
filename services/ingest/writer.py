"""The SQL that stores events: one connection, one transaction at a time.

New events go straight into the open segment by COPY, which fails as a whole when one of them is
there already, or when the segment was closed meanwhile. Which those are `find` tells.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
from asyncpg.pgproto import pgproto

from services.ingest.domain import StoredContent
from services.kit import clock
from services.kit.database import CONNECT_TIMEOUT_S, is_unavailable
from services.kit.errors import UnavailableError

_SESSION = {
    "application_name": "usageflow-ingest-committer",
    "jit": "off",
    # Ids are few and looked up by the primary key; a plan made while a segment was small, or
    # before it was analyzed, must not become a scan of all of it.
    "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",
}

# PostgreSQL runs several statements that come as one query in one transaction, so that all of it
# is one round trip: each waits for a turn of a busy loop too. Nothing in it comes from callers.
_STORE = """
INSERT INTO event_batches (batch_id, accept_time, event_count, segment) VALUES {batches};
COPY events_{segment} (event_time, event_id, organization_id, batch_id, mode, amount, metric,
    customer_id, metadata) FROM STDIN (FORMAT binary)
"""
_NOW = "SELECT now() + $1"
# For how long what PostgreSQL's clock said is the time of acceptance. It may lie before the
# transaction (README, "Watermark"), never behind its end.
NOW_S = 0.05

_FIND = """
SELECT event_id, batch_id, metric, amount::text, customer_id,
    (extract(epoch FROM event_time) * 1000000)::bigint
FROM events_{segment} WHERE event_id = ANY (${parameter}::uuid[])
"""
# Segments that are asked by one statement, with the same text until a segment comes or goes: so it
# is prepared once, and a group that has to ask ten of them pays for one round trip.
_FIND_SEGMENTS = 16

_NEWEST_ACCEPT_TIME = "SELECT max(accept_time) FROM event_batches WHERE batch_id = ANY ($1)"

_Connection = Any  # asyncpg.Connection, whose methods have no types

# Full disk, operator's intervention, input/output errors, a standby: away, like a lost connection.
_AWAY = (
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
)

# Raised by the trigger refuse_event (migrations).
_SEGMENT_CLOSED_STATE = "UF001"


class KeyTakenError(Exception):
    """An event is stored already, in the open segment; nothing was stored now."""


class SegmentGoneError(Exception):
    """The segment was closed, or dropped, since it was heard of; nothing was stored."""


class RepeatableError(Exception):
    """A deadlock or serialization failure; nothing was stored, the same again will do."""


class EventWriter:
    """One connection to ingest's database that stores events; made anew when it is lost."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._connection: _Connection | None = None
        self._now: datetime | None = None
        self._now_until_s = 0.0

    async def copy(
        self, segment: int, stream: bytes, batch_ids: list[UUID], counts: list[int]
    ) -> datetime:
        """Store events that are all new, and their batches; the time of acceptance.

        KeyTakenError, SegmentGoneError, RepeatableError: nothing was stored. UnavailableError:
        nobody knows whether they were stored.
        """
        connection = await self._connected()
        try:
            async with asyncio.timeout(self._timeout_s):
                now = await self._recent_now(connection)
                batches = ",".join(
                    f"('{batch_id}', '{now.isoformat()}', {count}, {segment})"
                    for batch_id, count in zip(batch_ids, counts, strict=True)
                )
                # asyncpg's public methods make the COPY statement themselves, and take bytes for
                # the path of a file.
                await connection._copy_in(
                    _STORE.format(batches=batches, segment=segment), memoryview(stream), None
                )
        except BaseException as error:
            if (refusal := _refusal(error)) is not None:
                raise refusal from error
            raise self._broken(error) from error
        return now

    async def _recent_now(self, connection: _Connection) -> datetime:
        """What PostgreSQL's clock, and our offset, said NOW_S ago at most."""
        asked_s = time.monotonic()
        if self._now is None or asked_s >= self._now_until_s:
            now: datetime = await connection.fetchval(_NOW, clock.offset())
            self._now, self._now_until_s = now, asked_s + NOW_S
        return self._now

    async def find(
        self, segments: Sequence[int], wanted: Mapping[int, Sequence[bytes]]
    ) -> list[StoredContent]:
        """What segments hold of the ids that each is asked for. `segments`: all there are, so that
        what is sent to PostgreSQL does not depend on which of them are asked.

        SegmentGoneError, UnavailableError.
        """
        found: list[StoredContent] = []
        for first in range(0, len(segments), _FIND_SEGMENTS):
            asked = segments[first : first + _FIND_SEGMENTS]
            if wanted.keys().isdisjoint(asked):
                continue
            query = " UNION ALL ".join(
                _FIND.format(segment=segment, parameter=number)
                for number, segment in enumerate(asked, start=1)
            )
            ids = [[pgproto.UUID(one) for one in wanted.get(segment, ())] for segment in asked]
            found += [
                StoredContent(row[0].bytes, row[1], row[2], row[3], row[4] or "", row[5])
                for row in await self._fetch(query, *ids)
            ]
        return found

    async def newest_accept_time(self, batch_ids: Sequence[UUID]) -> datetime | None:
        """When the last of these batches was accepted; None: they are gone. UnavailableError."""
        [row] = await self._fetch(_NEWEST_ACCEPT_TIME, batch_ids)
        newest: datetime | None = row[0]
        return newest

    async def _fetch(self, query: str, *parameters: Sequence[UUID]) -> list[Any]:
        connection = await self._connected()
        try:
            async with asyncio.timeout(self._timeout_s):
                rows: list[Any] = await connection.fetch(query, *parameters)
                return rows
        except BaseException as error:
            if (refusal := _refusal(error)) is not None:
                raise refusal from error
            raise self._broken(error) from error

    def _broken(self, error: BaseException) -> BaseException:
        """The error to raise; whatever the connection is doing, it is of no more use."""
        self.close()
        return _unavailable() if _is_away(error) else error

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = self._now = None

    async def _connected(self) -> _Connection:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        try:
            connect: Any = asyncpg.connect
            self._connection = await connect(
                self._url, timeout=CONNECT_TIMEOUT_S, server_settings=_SESSION
            )
        except Exception as error:
            if _is_away(error):
                raise _unavailable() from error
            raise
        return self._connection


def _refusal(error: BaseException) -> Exception | None:
    """What PostgreSQL's answer means when the transaction was rolled back and may be repeated."""
    if isinstance(error, asyncpg.UniqueViolationError):
        return KeyTakenError()
    if isinstance(error, (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)):
        return RepeatableError()
    closed = getattr(error, "sqlstate", None) == _SEGMENT_CLOSED_STATE
    if closed or isinstance(error, asyncpg.UndefinedTableError):
        return SegmentGoneError()
    return None


def _is_away(error: BaseException) -> bool:
    return isinstance(error, _AWAY) or is_unavailable(error)


def _unavailable() -> UnavailableError:
    return UnavailableError("Events can't be stored now; try again", retry_after_s=1.0)
