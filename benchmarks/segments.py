"""How far ingest's maintenance of segments is: its own tables tell."""

from typing import Any

import asyncpg

_THERE = "SELECT to_regclass('event_segments') IS NOT NULL"
_EQUIPPED = """
SELECT count(*) FROM event_segments WHERE close_time IS NOT NULL AND key_filter IS NOT NULL
"""
_BARE = """
SELECT count(*) FROM event_segments
WHERE close_time IS NOT NULL
    AND (key_filter IS NULL OR second_key_filter IS NULL OR index_time IS NULL)
"""


async def closed_segments(database_url: str) -> int | None:
    """How many are closed and have a key filter; None when events have no segments."""
    return await _count(database_url, _EQUIPPED)


async def bare_segments(database_url: str) -> int | None:
    """How many closed ones lack a key filter or an index; None when events have no segments."""
    return await _count(database_url, _BARE)


async def _count(database_url: str, query: str) -> int | None:
    connect: Any = asyncpg.connect
    connection = await connect(database_url)
    try:
        if not await connection.fetchval(_THERE):
            return None
        return int(await connection.fetchval(query))
    finally:
        await connection.close()
