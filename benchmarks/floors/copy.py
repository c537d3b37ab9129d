"""The floor of everything that stores events: a bare binary COPY of the same rows.

Stored events are read back and written again, a transaction each COPY, into a table with the same
columns and no index, constraint or trigger, in the same database. asyncpg makes the binary rows
out of Python values, as every writer has to make them out of something; `prebuilt` leaves that out
and tells the most that PostgreSQL takes. `python -m benchmarks.floors.copy`, a CopyFloor in, a
CopyResult out.
"""

import asyncio
import io
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import msgspec
import uvloop

from benchmarks.errors import BenchmarkError
from benchmarks.messages import CopyFloor, CopyResult

EVENTS = "events"  # ingest's table
TABLE = "benchmark_copy_floor"
STATEMENT_S_MAX = 120.0

# asyncpg has no annotations.
connect: Any = asyncpg.connect


Copy = Callable[[Any], Awaitable[object]]


async def prepare(connection: Any, floor: CopyFloor) -> list[Copy]:
    """COPYs of `rows_per_copy` rows each, into the table that is made for them."""
    await connection.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (LIKE {EVENTS})")
    await connection.execute(f"TRUNCATE {TABLE}")
    await connection.execute(
        f"CREATE TEMP TABLE stored AS SELECT * FROM {EVENTS} WHERE metric = '{floor.metric}'"
        f" LIMIT {floor.rows_prepared}"
    )
    found = await connection.fetchval("SELECT count(*) FROM stored")
    if found < floor.rows_per_copy:
        raise BenchmarkError(f"only {found} events of {floor.metric} to copy")
    make = prebuilt_copy if floor.prebuilt else copy_of_values
    return [
        await make(connection, f"SELECT * FROM stored LIMIT {floor.rows_per_copy} OFFSET {offset}")
        for offset in range(0, found - floor.rows_per_copy + 1, floor.rows_per_copy)
    ]


async def copy_of_values(connection: Any, query: str) -> Copy:
    """A COPY of Python values."""
    records = [tuple(record) for record in await connection.fetch(query)]

    def copy(target: Any) -> Any:
        return target.copy_records_to_table(TABLE, records=records)

    return copy


async def prebuilt_copy(connection: Any, query: str) -> Copy:
    """A COPY of bytes that only have to be sent."""
    stream = io.BytesIO()
    await connection.copy_from_query(query, output=stream, format="binary")

    def copy(target: Any) -> Any:
        source = io.BytesIO(stream.getvalue())
        return target.copy_to_table(TABLE, source=source, format="binary")

    return copy


async def write(connection: Any, copies: list[Copy], until_s: float) -> int:
    """Run the COPYs in turn; how many."""
    done = 0
    while time.perf_counter() < until_s:
        await copies[done % len(copies)](connection)
        done += 1
    return done


async def run(floor: CopyFloor) -> CopyResult:
    """Write for `measure_s` seconds, then drop the rows."""
    connections = [
        await connect(floor.database_url, command_timeout=STATEMENT_S_MAX)
        for _ in range(floor.connections)
    ]
    try:
        copies = await prepare(connections[0], floor)
        begun_s = time.perf_counter()
        until_s = begun_s + floor.measure_s
        done = await asyncio.gather(*(write(each, copies, until_s) for each in connections))
        seconds = time.perf_counter() - begun_s
        await connections[0].execute(f"TRUNCATE {TABLE}")
    finally:
        for connection in connections:
            await connection.close()
    return CopyResult(sum(done) * floor.rows_per_copy / seconds)


async def main() -> None:
    """Run the floor that stdin describes."""
    result = await run(msgspec.json.decode(sys.stdin.buffer.read(), type=CopyFloor))
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    uvloop.run(main())
