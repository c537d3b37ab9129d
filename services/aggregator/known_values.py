"""The SQL of the values that dimensions know. Each function works inside the caller's transaction.

A dimension of a metric knows the first `dimension_values_max` values that come; what comes then is
counted under dimensions.OVERFLOW. Nothing is ever forgotten and nothing gets into a full
dimension, so of any value it is clear for ever under what its events were counted.
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator.details import value_key
from services.aggregator.fold import DimensionValue

_FIND = text("""
SELECT metric_id, dimension, value_key FROM dimension_values
JOIN unnest(CAST(:metric_ids AS bigint[]), CAST(:dimensions AS text[]),
    CAST(:value_keys AS bytea[]))
    AS wanted (metric_id, dimension, value_key) USING (metric_id, dimension, value_key)
""")

_FIND_ROOM = text("""
SELECT metric_id, dimension, dimension_values_max AS most, (
    SELECT coalesce(max(number), 0) FROM dimension_values AS known
    WHERE known.metric_id = wanted.metric_id AND known.dimension = wanted.dimension
) AS filled
FROM unnest(CAST(:metric_ids AS bigint[]), CAST(:dimensions AS text[]))
    AS wanted (metric_id, dimension) JOIN metrics USING (metric_id)
""")

_LOCK_METRICS = text("""
SELECT FROM metrics WHERE metric_id = ANY (CAST(:metric_ids AS bigint[]))
ORDER BY metric_id FOR NO KEY UPDATE
""")

_INSERT = text("""
INSERT INTO dimension_values (metric_id, dimension, value_key, number)
SELECT * FROM unnest(CAST(:metric_ids AS bigint[]), CAST(:dimensions AS text[]),
    CAST(:value_keys AS bytea[]), CAST(:numbers AS integer[]))
""")

_FIND_FULL = text("""
SELECT metric_id, dimension, array_agg(value_key) AS value_keys
FROM dimension_values JOIN metrics USING (metric_id)
WHERE metric_id = ANY (CAST(:metric_ids AS bigint[]))
GROUP BY metric_id, dimension, dimension_values_max
HAVING count(*) >= dimension_values_max
""")


async def find_known(
    connection: AsyncConnection, values: Collection[DimensionValue]
) -> set[DimensionValue]:
    """Those that their dimension knows."""
    by_key = {(each.metric_id, each.name, value_key(each.value)): each for each in values}
    rows = await connection.execute(_FIND, _columns_of(list(by_key)))
    return {by_key[row.metric_id, row.dimension, bytes(row.value_key)] for row in rows}


async def make_known(
    connection: AsyncConnection, values: Collection[DimensionValue]
) -> set[DimensionValue]:
    """Those of the values, which find_known did not find, that are known from now on.

    Whoever else lets values into a dimension of the same metric is waited for. Of several at once
    the first in the order of their texts get in.
    """
    room = await _find_room(connection, values)
    hopeful = sorted(each for each in values if room[each[:2]][0] > 0)
    if not hopeful:
        return set()
    ids = sorted({each.metric_id for each in hopeful})
    await connection.execute(_LOCK_METRICS, {"metric_ids": ids})
    known = await find_known(connection, hopeful)
    room = await _find_room(connection, hopeful)
    numbered: dict[DimensionValue, int] = {}
    for each in hopeful:
        left, next_number = room[each[:2]]
        if each not in known and left > 0:
            numbered[each] = next_number
            room[each[:2]] = left - 1, next_number + 1
    if numbered:
        keys = [(each.metric_id, each.name, value_key(each.value)) for each in numbered]
        numbers = {"numbers": list(numbered.values())}
        await connection.execute(_INSERT, _columns_of(keys) | numbers)
    return known | numbered.keys()


async def _find_room(
    connection: AsyncConnection, values: Collection[DimensionValue]
) -> dict[tuple[int, str], tuple[int, int]]:
    """For each dimension, how many more it may know, and the number of the next."""
    wanted = sorted({each[:2] for each in values})
    columns = {
        "metric_ids": [metric_id for metric_id, _ in wanted],
        "dimensions": [name for _, name in wanted],
    }
    return {
        (row.metric_id, row.dimension): (row.most - row.filled, row.filled + 1)
        for row in await connection.execute(_FIND_ROOM, columns)
    }


async def find_full(
    connection: AsyncConnection, metric_ids: Collection[int]
) -> dict[int, dict[str, frozenset[bytes]]]:
    """Of those metrics that have full dimensions, which values these know."""
    full: dict[int, dict[str, frozenset[bytes]]] = {}
    for row in await connection.execute(_FIND_FULL, {"metric_ids": sorted(metric_ids)}):
        full.setdefault(row.metric_id, {})[row.dimension] = frozenset(map(bytes, row.value_keys))
    return full


def _columns_of(keys: list[tuple[int, str, bytes]]) -> dict[str, Any]:
    return {
        "metric_ids": [metric_id for metric_id, _, _ in keys],
        "dimensions": [name for _, name, _ in keys],
        "value_keys": [key for _, _, key in keys],
    }
