"""Buckets whose smallest, largest and last a void may have taken away, and which are counted anew.

An exact bucket's largest may be above its sum for a moment: what is counted anew is read from the
stored events, of which the newest may not have been folded yet.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

COLUMNS = (
    "ALTER TABLE metrics ADD COLUMN counted_undefined boolean NOT NULL DEFAULT false",
    "ALTER TABLE usage_buckets ADD COLUMN extremes_exact boolean NOT NULL DEFAULT true",
)

AMOUNTS = """
ALTER TABLE usage_buckets DROP CONSTRAINT ck_usage_buckets_amounts,
    DROP CONSTRAINT ck_usage_buckets_latest,
    ADD CONSTRAINT ck_usage_buckets_amounts CHECK (
        amount_sum >= 0 AND amount_sum < 'Infinity' AND (NOT extremes_exact OR
        (amount_min >= 0 AND amount_min <= amount_max AND amount_max < 'Infinity'))
    ),
    ADD CONSTRAINT ck_usage_buckets_latest CHECK (
        NOT extremes_exact OR (latest_value BETWEEN amount_min AND amount_max
        AND octet_length(latest_event_id) = 16 AND latest_time >= bucket_start
        AND latest_time < bucket_start + interval '15 minutes')
    )
"""

OLD_AMOUNTS = """
ALTER TABLE usage_buckets DROP CONSTRAINT ck_usage_buckets_amounts,
    DROP CONSTRAINT ck_usage_buckets_latest,
    ADD CONSTRAINT ck_usage_buckets_amounts CHECK (
        amount_min >= 0 AND amount_min <= amount_max AND amount_max <= amount_sum
        AND amount_sum < 'Infinity'
    ),
    ADD CONSTRAINT ck_usage_buckets_latest CHECK (
        latest_value BETWEEN amount_min AND amount_max AND octet_length(latest_event_id) = 16
        AND latest_time >= bucket_start AND latest_time < bucket_start + interval '15 minutes'
    )
"""

# A mark never comes back, also when a bucket was emptied and begun anew.
BUCKET_RECOUNT_MARKS = "CREATE SEQUENCE bucket_recount_marks"

BUCKET_RECOUNTS = """
CREATE TABLE bucket_recounts (
    series_id bigint NOT NULL,
    bucket_start timestamptz NOT NULL,
    mark bigint NOT NULL DEFAULT nextval('bucket_recount_marks'),
    attempt_time timestamptz NOT NULL DEFAULT '-infinity',
    CONSTRAINT pk_bucket_recounts PRIMARY KEY (series_id, bucket_start),
    CONSTRAINT fk_bucket_recounts_series_id_bucket_start_usage_buckets
        FOREIGN KEY (series_id, bucket_start) REFERENCES usage_buckets ON DELETE CASCADE
)
"""


def upgrade() -> None:
    """Add the columns and the table."""
    for statement in (*COLUMNS, AMOUNTS, BUCKET_RECOUNT_MARKS, BUCKET_RECOUNTS):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade; the database refuses it while buckets are not exact."""
    op.drop_table("bucket_recounts")
    op.execute("DROP SEQUENCE bucket_recount_marks")
    op.execute(OLD_AMOUNTS)
    op.drop_column("usage_buckets", "extremes_exact")
    op.drop_column("metrics", "counted_undefined")
