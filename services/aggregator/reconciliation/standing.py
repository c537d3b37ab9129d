"""What reconciliation has found of a tenant and not repaired yet, for whoever looks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import text

from services.kit.database import Database, TenantKey

# Of those that are told one by one; the count has all.
DIFFERENCES_TOLD_MAX = 100

_STATE = text("SELECT closed_hour FROM reconciliation_state")
_OPEN = text("""
SELECT metric, hour, accepted_count, accepted_sum, counted_count, counted_sum, find_time,
    count(*) OVER () AS all_count
FROM reconciliation_differences
WHERE organization_id = :organization_id AND mode = :mode AND repair_time IS NULL
ORDER BY find_time DESC, metric, hour LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class OpenDifference:
    """An hour of a metric whose usage is not what was accepted."""

    metric: str
    hour: datetime
    accepted_count: int
    accepted_sum: Decimal
    counted_count: int
    counted_sum: Decimal
    find_time: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """How usage stands against what was accepted. All hours before `checked_until` were compared
    after their end; None: none was yet.
    """

    checked_until: datetime | None
    count: int
    differences: Sequence[OpenDifference]


class Standings:
    """Tells it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant: TenantKey) -> Standing:
        """The tenant's differences that are open, newest first."""
        values = tenant._asdict() | {"limit": DIFFERENCES_TOLD_MAX}
        async with self._database.transaction() as connection:
            closed_hour = (await connection.execute(_STATE)).scalar_one_or_none()
            rows = (await connection.execute(_OPEN, values)).all()
        found = [
            OpenDifference(
                row.metric,
                row.hour,
                row.accepted_count,
                row.accepted_sum,
                row.counted_count,
                row.counted_sum,
                row.find_time,
            )
            for row in rows
        ]
        return Standing(closed_hour, rows[0].all_count if rows else 0, found)
