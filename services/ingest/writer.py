"""The SQL that stores events: one connection, one transaction at a time.

Two ways in. `copy` puts new events straight into the table, and fails as a whole when one of them
is there already. `merge` copies into a temporary table first, inserts what is new and compares
the rest; it can be repeated with the same events and batch ids, however the first time ended.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from services.ingest.domain import Difference
from services.kit import clock
from services.kit.database import CONNECT_TIMEOUT_S, is_unavailable
from services.kit.errors import UnavailableError

_SESSION = {
    "application_name": "usageflow-ingest-committer",
    "jit": "off",
    # Staged rows are few and looked up by event id; a plan made while the table was small, or
    # before it was analyzed, must not become a scan of all events.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}

_STAGE = """
CREATE TEMPORARY TABLE staged_events
(LIKE events, ordinal integer NOT NULL, flags smallint NOT NULL) ON COMMIT DELETE ROWS
"""

_INSERT_BATCHES = """
INSERT INTO event_batches (batch_id, accept_time, event_count)
SELECT batch_id, now() + $3, event_count
FROM unnest($1::uuid[], $2::integer[]) AS new (batch_id, event_count)
RETURNING batch_id, accept_time
"""

# In the order of their ids: two transactions with the same events wait, and never deadlock.
_MERGE = """
WITH stored AS (
    INSERT INTO events (event_time, event_id, organization_id, batch_id, mode, amount, metric,
        customer_id, metadata)
    SELECT event_time, event_id, organization_id, batch_id, mode, amount, metric, customer_id,
        metadata
    FROM staged_events WHERE flags & 2 = 0 ORDER BY event_id
    ON CONFLICT (event_id) DO NOTHING
    RETURNING batch_id
)
INSERT INTO event_batches (batch_id, accept_time, event_count)
SELECT batch_id, now() + $1, count(*) FROM stored GROUP BY batch_id
RETURNING batch_id, accept_time
"""

# All but those that this very group has stored.
_COMPARE = """
SELECT staged.ordinal,
    stored.metric <> staged.metric,
    stored.amount <> staged.amount,
    stored.customer_id IS DISTINCT FROM staged.customer_id,
    staged.flags & 1 = 1 AND stored.event_time <> staged.event_time
FROM staged_events AS staged JOIN events AS stored USING (event_id)
WHERE stored.batch_id <> ALL ($1::uuid[]) OR staged.flags & 2 = 2
"""

AcceptTimes = dict[UUID, datetime]
_Connection = Any  # asyncpg.Connection, whose methods have no types

_COLUMNS = [
    "event_time",
    "event_id",
    "organization_id",
    "batch_id",
    "mode",
    "amount",
    "metric",
    "customer_id",
    "metadata",
]
_STAGED_COLUMNS = [*_COLUMNS, "ordinal", "flags"]

# Full disk, operator's intervention, input/output errors, a standby: away, like a lost connection.
_AWAY = (
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
)

# Raised to the caller, who merges instead: the transaction was rolled back and may be repeated.
RolledBack = (
    asyncpg.UniqueViolationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)


class EventWriter:
    """One connection to ingest's database that stores events; made anew when it is lost."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._connection: _Connection | None = None

    async def copy(self, stream: bytes, batch_ids: list[UUID], counts: list[int]) -> AcceptTimes:
        """Store events that are all new, and their batches; one of RolledBack when they are not.

        UnavailableError: nobody knows whether they were stored.
        """
        async with self._transaction() as connection:
            rows = await connection.fetch(_INSERT_BATCHES, batch_ids, counts, clock.offset())
            await _copy(connection, "events", _COLUMNS, stream)
        return dict(rows)

    async def merge(
        self, stream: bytes, batch_ids: Sequence[UUID]
    ) -> tuple[AcceptTimes, list[Difference]]:
        """Store those that are new, and compare the others with what was stored before.

        Returns the batches in which anything is new, and a Difference for each event that is not.
        UnavailableError: nobody knows what was stored.
        """
        async with self._transaction() as connection:
            await _copy(connection, "staged_events", _STAGED_COLUMNS, stream)
            batches = await connection.fetch(_MERGE, clock.offset())
            differences = await connection.fetch(_COMPARE, batch_ids)
        return dict(batches), [Difference._make(row) for row in differences]

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[_Connection]:
        connection = await self._connected()
        try:
            async with asyncio.timeout(self._timeout_s):
                await connection.execute("BEGIN")
                yield connection
                await connection.execute("COMMIT")
        except RolledBack:
            await self._roll_back(connection)
            raise
        except BaseException as error:
            # Whatever the connection is doing, it is of no more use.
            self.close()
            if _is_away(error):
                raise _unavailable() from error
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _connected(self) -> _Connection:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        try:
            connect: Any = asyncpg.connect
            connection = await connect(
                self._url, timeout=CONNECT_TIMEOUT_S, server_settings=_SESSION
            )
            await connection.execute(_STAGE)
        except Exception as error:
            if _is_away(error):
                raise _unavailable() from error
            raise
        self._connection = connection
        return connection

    async def _roll_back(self, connection: _Connection) -> None:
        try:
            await connection.execute("ROLLBACK", timeout=self._timeout_s)
        except Exception as error:
            self.close()
            raise _unavailable() from error


async def _copy(connection: _Connection, table: str, columns: list[str], stream: bytes) -> None:
    # A memoryview, because asyncpg takes bytes for the path of a file.
    await connection.copy_to_table(
        table, columns=columns, source=memoryview(stream), format="binary"
    )


def _is_away(error: BaseException) -> bool:
    return isinstance(error, _AWAY) or is_unavailable(error)


def _unavailable() -> UnavailableError:
    return UnavailableError("Events can't be stored now; try again", retry_after_s=1.0)
