"""By how much usage of metrics with quotas has grown, beside that it has.

Replicas add it to what they remember, where they had to read the period's usage again. A row
without it, as the version before writes them, says that anything may have changed.
"""

from alembic import op

revision = "0015"
down_revision = "0014"

ADD = """
ALTER TABLE quota_changes
    ADD quarters bigint[],
    ADD event_counts bigint[],
    ADD amount_sums numeric[],
    ADD CONSTRAINT ck_quota_changes_growth CHECK (
        num_nulls(quarters, event_counts, amount_sums) = 3
        OR num_nulls(quarters, event_counts, amount_sums) = 0
            AND cardinality(quarters) = cardinality(metric_ids)
            AND cardinality(event_counts) = cardinality(metric_ids)
            AND cardinality(amount_sums) = cardinality(metric_ids)
    )
"""

DROP = """
ALTER TABLE quota_changes
    DROP CONSTRAINT ck_quota_changes_growth,
    DROP quarters,
    DROP event_counts,
    DROP amount_sums
"""


def upgrade() -> None:
    """Add the columns."""
    op.execute(ADD)


def downgrade() -> None:
    """Undo upgrade."""
    op.execute(DROP)
