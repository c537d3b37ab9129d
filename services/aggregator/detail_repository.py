"""The SQL of values and rounded amounts (details.py), inside the transaction of a fold.

Whoever changes the details of a bucket holds the bucket's lock, so nobody else is at them.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator.arrays import array_text, bytes_text
from services.aggregator.bucket import Bucket
from services.aggregator.voids import BucketKey

# What a detail is the count of: a key of a value, or a rounded amount.
Detail = bytes | Decimal
Details = Mapping[tuple[BucketKey, Detail], int]

_START = "'epoch'::timestamptz + quarter * interval '15 minutes'"


def _folded(column: str, kind: str) -> str:
    return f"""unnest(CAST(CAST(:series_ids AS text) AS bigint[]),
    CAST(CAST(:quarters AS text) AS bigint[]),
    CAST(CAST(:details AS text) AS {kind}[]),
    CAST(CAST(:event_counts AS text) AS bigint[]))
    AS folded (series_id, quarter, {column}, event_count)"""


def _add(table: str, column: str, kind: str) -> TextClause:
    return text(f"""
INSERT INTO {table} AS old (series_id, bucket_start, {column}, event_count)
SELECT series_id, {_START}, {column}, event_count FROM {_folded(column, kind)}
ORDER BY series_id, quarter, {column}
ON CONFLICT (series_id, bucket_start, {column})
    DO UPDATE SET event_count = old.event_count + excluded.event_count
""")  # noqa: S608 (no value is pasted in)


def _subtract(table: str, column: str, kind: str) -> TextClause:
    same = f"old.series_id = less.series_id AND old.bucket_start = less.bucket_start \
    AND old.{column} = less.{column}"
    return text(f"""
WITH less AS (
    SELECT series_id, {_START} AS bucket_start, {column}, event_count
    FROM {_folded(column, kind)}
), gone AS (
    DELETE FROM {table} AS old USING less
    WHERE {same} AND old.event_count = less.event_count RETURNING 1
), fewer AS (
    UPDATE {table} AS old SET event_count = old.event_count - less.event_count FROM less
    WHERE {same} AND old.event_count > less.event_count RETURNING 1
)
SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM fewer)
""")  # noqa: S608 (no value is pasted in)


_VALUES = ("unique_values", "value_key", "bytea")
_AMOUNTS = ("amount_counts", "amount", "numeric")
_ADD_VALUES, _SUBTRACT_VALUES = _add(*_VALUES), _subtract(*_VALUES)
_ADD_AMOUNTS, _SUBTRACT_AMOUNTS = _add(*_AMOUNTS), _subtract(*_AMOUNTS)


async def add_details(
    connection: AsyncConnection, folded: Sequence[tuple[int, int, Bucket]]
) -> None:
    """Add what the buckets keep, if they do; after they were added to their table."""
    values: dict[tuple[BucketKey, Detail], int] = {}
    amounts: dict[tuple[BucketKey, Detail], int] = {}
    for series_id, quarter, bucket in folded:
        key = BucketKey(series_id, quarter)
        for value, count in (bucket.values or {}).items():
            values[key, value] = count
        for amount, count in (bucket.amounts or {}).items():
            amounts[key, amount] = count
    if values:
        await connection.execute(_ADD_VALUES, _columns_of(values))
    if amounts:
        await connection.execute(_ADD_AMOUNTS, _columns_of(amounts))


async def subtract_details(connection: AsyncConnection, voided: Details) -> bool:
    """Take events out of the details of locked buckets; False: some are not there as often."""
    values = {key: count for key, count in voided.items() if isinstance(key[1], bytes)}
    amounts = {key: count for key, count in voided.items() if isinstance(key[1], Decimal)}
    found = 0
    if values:
        found += (await connection.execute(_SUBTRACT_VALUES, _columns_of(values))).scalar_one()
    if amounts:
        found += (await connection.execute(_SUBTRACT_AMOUNTS, _columns_of(amounts))).scalar_one()
    return found == len(voided)


def _columns_of(details: Details) -> dict[str, str]:
    return {
        "series_ids": array_text([key.series_id for key, _ in details]),
        "quarters": array_text([key.quarter for key, _ in details]),
        "details": array_text(
            [bytes_text(each) if isinstance(each, bytes) else each for _, each in details]
        ),
        "event_counts": array_text(details.values()),
    }
