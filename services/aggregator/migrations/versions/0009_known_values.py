"""The values that dimensions know; what comes when one is full is counted under __other__.

Values that were counted before are known, however many they are.
"""

from alembic import op

revision = "0009"
down_revision = "0006"

MOST = (
    "ALTER TABLE metrics ADD COLUMN dimension_values_max integer NOT NULL DEFAULT 1000, "
    "ADD CONSTRAINT ck_metrics_dimension_values_max CHECK (dimension_values_max >= 1)"
)

DIMENSION_VALUES = """
CREATE TABLE dimension_values (
    metric_id bigint NOT NULL,
    dimension text NOT NULL,
    value_key bytea NOT NULL,
    number integer NOT NULL,
    CONSTRAINT pk_dimension_values PRIMARY KEY (metric_id, dimension, value_key),
    CONSTRAINT uq_dimension_values_metric_id_dimension_number
        UNIQUE (metric_id, dimension, number),
    CONSTRAINT fk_dimension_values_metric_id_metrics
        FOREIGN KEY (metric_id) REFERENCES metrics (metric_id) ON DELETE CASCADE,
    CONSTRAINT ck_dimension_values_value_key CHECK (octet_length(value_key) = 16),
    CONSTRAINT ck_dimension_values_number CHECK (number >= 1)
)
"""

KNOWN = """
INSERT INTO dimension_values (metric_id, dimension, value_key, number)
SELECT metric_id, name, substring(sha256(convert_to(value, 'UTF8')) FROM 1 FOR 16),
    row_number() OVER (PARTITION BY metric_id, name ORDER BY value COLLATE "C")
FROM (
    SELECT DISTINCT metric_id, key AS name, value FROM series, jsonb_each_text(dimensions)
    WHERE value NOT IN ('', '__other__')
) AS counted
"""

ROOM = (
    # What somebody has defined stays as it is: more values were counted than a new metric may have.
    "ALTER TABLE metrics DISABLE TRIGGER keep_metrics",
    """
UPDATE metrics SET dimension_values_max = most
FROM (SELECT metric_id, max(number) AS most FROM dimension_values GROUP BY metric_id) AS known
WHERE metrics.metric_id = known.metric_id AND most > dimension_values_max
""",
    "ALTER TABLE metrics ENABLE TRIGGER keep_metrics",
)

KEEP_VALUES = """
CREATE FUNCTION keep_dimension_values() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        RAISE EXCEPTION 'what a dimension knows never changes';
    END IF;
    IF NEW.number > (SELECT dimension_values_max FROM metrics WHERE metric_id = NEW.metric_id) THEN
        RAISE EXCEPTION 'a dimension knows no more values than it may';
    END IF;
    RETURN NEW;
END
$$
"""

TRIGGER = (
    "CREATE TRIGGER keep_dimension_values BEFORE INSERT OR UPDATE ON dimension_values "
    "FOR EACH ROW EXECUTE FUNCTION keep_dimension_values()"
)


def upgrade() -> None:
    """Make the table and the column, and fill them."""
    for statement in (MOST, DIMENSION_VALUES, KNOWN, *ROOM, KEEP_VALUES, TRIGGER):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade."""
    op.drop_table("dimension_values")
    op.execute("DROP FUNCTION keep_dimension_values()")
    op.drop_column("metrics", "dimension_values_max")
