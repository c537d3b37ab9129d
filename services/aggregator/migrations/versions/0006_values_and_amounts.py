"""Values of a property, and rounded amounts: how many events of a bucket have which.

They are kept from a metric's first event on, so whether they are never changes.
"""

from alembic import op

revision = "0006"
down_revision = "0004"

PERCENTILES = "ALTER TABLE metrics ADD COLUMN percentiles boolean NOT NULL DEFAULT false"

UNIQUE_VALUES = """
CREATE TABLE unique_values (
    series_id bigint NOT NULL,
    bucket_start timestamptz NOT NULL,
    value_key bytea NOT NULL,
    event_count bigint NOT NULL,
    CONSTRAINT pk_unique_values PRIMARY KEY (series_id, bucket_start, value_key),
    CONSTRAINT fk_unique_values_series_id_bucket_start_usage_buckets
        FOREIGN KEY (series_id, bucket_start) REFERENCES usage_buckets ON DELETE CASCADE,
    CONSTRAINT ck_unique_values_value_key CHECK (octet_length(value_key) IN (0, 16)),
    CONSTRAINT ck_unique_values_event_count CHECK (event_count > 0)
)
"""

AMOUNT_COUNTS = """
CREATE TABLE amount_counts (
    series_id bigint NOT NULL,
    bucket_start timestamptz NOT NULL,
    amount numeric NOT NULL,
    event_count bigint NOT NULL,
    CONSTRAINT pk_amount_counts PRIMARY KEY (series_id, bucket_start, amount),
    CONSTRAINT fk_amount_counts_series_id_bucket_start_usage_buckets
        FOREIGN KEY (series_id, bucket_start) REFERENCES usage_buckets ON DELETE CASCADE,
    CONSTRAINT ck_amount_counts_amount CHECK (amount >= 0 AND amount < 'Infinity'),
    CONSTRAINT ck_amount_counts_event_count CHECK (event_count > 0)
)
"""

KEEP_DETAILS = """
CREATE FUNCTION keep_details() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'whether values and amounts of a metric are kept never changes';
END
$$
"""

# "keep_details" comes before "keep_metrics", in the order of names.
TRIGGER = (
    "CREATE TRIGGER keep_details BEFORE UPDATE ON metrics FOR EACH ROW "
    "WHEN ((NEW.unique_by, NEW.percentiles) IS DISTINCT FROM (OLD.unique_by, OLD.percentiles)) "
    "EXECUTE FUNCTION keep_details()"
)


def upgrade() -> None:
    """Make the column, the tables and the trigger."""
    for statement in (PERCENTILES, UNIQUE_VALUES, AMOUNT_COUNTS, KEEP_DETAILS, TRIGGER):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade."""
    op.execute("DROP TRIGGER keep_details ON metrics")
    op.execute("DROP FUNCTION keep_details()")
    op.drop_table("amount_counts")
    op.drop_table("unique_values")
    op.drop_column("metrics", "percentiles")
