"""The SQL that compares two counts of a metric, inside the caller's snapshot."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_CUSTOMERS = """
SELECT DISTINCT customer_id FROM series
WHERE metric_id IN (:old_id, :new_id) AND customer_id {after} ORDER BY customer_id LIMIT :limit
"""
_FIRST_CUSTOMERS = text(_CUSTOMERS.format(after=">= ''"))
_NEXT_CUSTOMERS = text(_CUSTOMERS.format(after="> :after"))

_DIFFERING = text("""
WITH counted AS (
    SELECT customer_id, metric_id, sum(event_count) AS event_count, sum(amount_sum) AS amount_sum
    FROM series JOIN usage_buckets USING (series_id)
    WHERE metric_id IN (:old_id, :new_id) AND customer_id = ANY (CAST(:customers AS text[]))
    GROUP BY customer_id, metric_id
)
SELECT customer_id FROM counted
GROUP BY customer_id
HAVING count(*) <> 2 OR min(event_count) <> max(event_count) OR min(amount_sum) <> max(amount_sum)
LIMIT 1
""")


async def read_counted_id(connection: AsyncConnection, metric_id: int) -> int:
    """Under what a metric is counted."""
    statement = text("SELECT counted_id FROM metrics WHERE metric_id = :metric_id")
    return int((await connection.execute(statement, {"metric_id": metric_id})).scalar_one())


async def find_customers(
    connection: AsyncConnection, ids: tuple[int, int], after: str | None, limit: int
) -> list[str]:
    """The next customers ("" for none) that either of two counts has, in their order."""
    values: dict[str, object] = {"old_id": ids[0], "new_id": ids[1], "limit": limit}
    if after is None:
        rows = await connection.execute(_FIRST_CUSTOMERS, values)
    else:
        rows = await connection.execute(_NEXT_CUSTOMERS, values | {"after": after})
    return list(rows.scalars())


async def find_differing(
    connection: AsyncConnection, ids: tuple[int, int], customers: Sequence[str]
) -> str | None:
    """One of the customers of whom the two have not the same number and sum of events."""
    values = {"old_id": ids[0], "new_id": ids[1], "customers": list(customers)}
    found = (await connection.execute(_DIFFERING, values)).first()
    return None if found is None else str(found.customer_id)
