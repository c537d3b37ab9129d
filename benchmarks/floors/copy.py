"""The floor of everything that stores events: a bare COPY of the same rows.

The rows are stored events, read back in PostgreSQL's binary COPY format and written again, over a
few connections, a transaction each COPY, into a table with the same columns and no index,
constraint or trigger, in the same database. `python -m benchmarks.floors.copy`, a CopyFloor in, a
CopyResult out.
"""

import asyncio
import io
import sys
import time
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


async def prepare(connection: Any, floor: CopyFloor) -> list[bytes]:
    """COPY streams of `rows_per_copy` rows each; the empty table to write them to."""
    rows = floor.rows_per_copy * floor.copies_prepared
    await connection.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (LIKE {EVENTS})")
    await connection.execute(f"TRUNCATE {TABLE}")
    await connection.execute(
        f"CREATE TEMP TABLE stored AS SELECT * FROM {EVENTS} WHERE metric = '{floor.metric}'"
        f" LIMIT {rows}"
    )
    found = await connection.fetchval("SELECT count(*) FROM stored")
    if found < floor.rows_per_copy:
        raise BenchmarkError(f"only {found} events of {floor.metric} to copy")
    streams = []
    for offset in range(0, found - floor.rows_per_copy + 1, floor.rows_per_copy):
        stream = io.BytesIO()
        await connection.copy_from_query(
            f"SELECT * FROM stored LIMIT {floor.rows_per_copy} OFFSET {offset}",
            output=stream,
            format="binary",
        )
        streams.append(stream.getvalue())
    return streams


async def write(connection: Any, streams: list[bytes], until_s: float) -> int:
    """COPY the streams in turn; how many."""
    copies = 0
    while time.perf_counter() < until_s:
        source = io.BytesIO(streams[copies % len(streams)])
        await connection.copy_to_table(TABLE, source=source, format="binary")
        copies += 1
    return copies


async def run(floor: CopyFloor) -> CopyResult:
    """Write for `measure_s` seconds, then drop the rows."""
    connections = [
        await connect(floor.database_url, command_timeout=STATEMENT_S_MAX)
        for _ in range(floor.connections)
    ]
    try:
        streams = await prepare(connections[0], floor)
        begun_s = time.perf_counter()
        until_s = begun_s + floor.measure_s
        copies = await asyncio.gather(*(write(each, streams, until_s) for each in connections))
        seconds = time.perf_counter() - begun_s
        await connections[0].execute(f"TRUNCATE {TABLE}")
    finally:
        for connection in connections:
            await connection.close()
    return CopyResult(sum(copies) * floor.rows_per_copy / seconds)


async def main() -> None:
    """Run the floor that stdin describes."""
    result = await run(msgspec.json.decode(sys.stdin.buffer.read(), type=CopyFloor))
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    uvloop.run(main())
