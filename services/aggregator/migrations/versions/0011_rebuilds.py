"""Metrics whose definition changes: built anew beside the old one, which serves meanwhile.

A metric keeps its row, and its id, for ever. What it counts lies in the series of `counted_id`: its
own at first, later those of a row without a key that was built for it (`of_metric_id`). So to
change a definition is to change one number, in one transaction.

A batch in the inbox has the version of the definitions that it was folded by. Whoever folds holds
the advisory lock (11, 1), shared, from before that version is read until the commit; whoever begins
to build, or to take voids out of what is built, holds it alone. So of every batch it is clear which
of the definitions it was counted by: those of a version before the building began only by the old.
"""

from alembic import op

revision = "0011"
down_revision = "0008"

METRICS = (
    "ALTER TABLE metrics ALTER key DROP NOT NULL, ADD counted_id bigint, ADD of_metric_id bigint, "
    "ADD archive_time timestamptz, ADD billed_time timestamptz",
    "ALTER TABLE metrics DISABLE TRIGGER keep_metrics",
    "UPDATE metrics SET counted_id = metric_id",
    "ALTER TABLE metrics ENABLE TRIGGER keep_metrics",
    """
ALTER TABLE metrics
    ADD CONSTRAINT uq_metrics_counted_id UNIQUE (counted_id),
    ADD CONSTRAINT fk_metrics_counted_id_metrics
        FOREIGN KEY (counted_id) REFERENCES metrics (metric_id),
    ADD CONSTRAINT fk_metrics_of_metric_id_metrics
        FOREIGN KEY (of_metric_id) REFERENCES metrics (metric_id),
    ADD CONSTRAINT ck_metrics_counted_id CHECK ((key IS NULL) = (counted_id IS NULL)),
    ADD CONSTRAINT ck_metrics_of_metric_id CHECK ((key IS NULL) = (of_metric_id IS NOT NULL))
""",
    "CREATE INDEX ix_metrics_of_metric_id ON metrics (of_metric_id) WHERE of_metric_id IS NOT NULL",
)

INBOX = "ALTER TABLE inbox ADD definition_version bigint NOT NULL DEFAULT 0"

REBUILDS = """
CREATE TABLE metric_rebuilds (
    rebuild_id bigint GENERATED ALWAYS AS IDENTITY,
    metric_id bigint NOT NULL,
    building_id bigint,
    state text NOT NULL,
    start_version bigint NOT NULL,
    voids_version bigint,
    cursor text NOT NULL,
    attempt integer NOT NULL,
    events_done bigint NOT NULL,
    events_total bigint,
    error text NOT NULL,
    due_time timestamptz NOT NULL,
    start_time timestamptz NOT NULL,
    end_time timestamptz,
    CONSTRAINT pk_metric_rebuilds PRIMARY KEY (rebuild_id),
    CONSTRAINT fk_metric_rebuilds_metric_id_metrics
        FOREIGN KEY (metric_id) REFERENCES metrics (metric_id),
    CONSTRAINT fk_metric_rebuilds_building_id_metrics
        FOREIGN KEY (building_id) REFERENCES metrics (metric_id) ON DELETE SET NULL,
    CONSTRAINT ck_metric_rebuilds_state CHECK (
        state IN ('EVENTS', 'VOIDS', 'DONE', 'FAILED', 'CANCELLED')
    ),
    CONSTRAINT ck_metric_rebuilds_end_time CHECK (
        (state IN ('EVENTS', 'VOIDS')) = (end_time IS NULL)
    ),
    CONSTRAINT ck_metric_rebuilds_building_id CHECK (
        building_id IS NOT NULL OR end_time IS NOT NULL
    ),
    CONSTRAINT ck_metric_rebuilds_voids_version CHECK (
        state <> 'VOIDS' OR voids_version > start_version
    ),
    CONSTRAINT ck_metric_rebuilds_error CHECK ((state = 'FAILED') = (error <> '')),
    CONSTRAINT ck_metric_rebuilds_events CHECK (events_done >= 0 AND events_total >= 0)
)
"""

RUNNING = (
    "CREATE UNIQUE INDEX uq_metric_rebuilds_running ON metric_rebuilds (metric_id) "
    "WHERE end_time IS NULL"
)
LATEST = (
    "CREATE INDEX ix_metric_rebuilds_metric_id_rebuild_id "
    "ON metric_rebuilds (metric_id, rebuild_id)"
)

COUNT_BY_ITSELF = """
CREATE FUNCTION count_metric_by_itself() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.key IS NOT NULL THEN
        NEW.counted_id := NEW.metric_id;
    END IF;
    RETURN NEW;
END
$$
"""

KEEP_METRICS = """
CREATE OR REPLACE FUNCTION keep_metrics() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.key IS NOT NULL THEN
            RAISE EXCEPTION 'a metric is never deleted';
        END IF;
        IF EXISTS (
            SELECT FROM metric_rebuilds WHERE building_id = OLD.metric_id AND end_time IS NULL
        ) THEN
            RAISE EXCEPTION 'a metric is being built of it';
        END IF;
        RETURN OLD;
    END IF;
    IF (NEW.metric_id, NEW.organization_id, NEW.mode, NEW.key, NEW.of_metric_id, NEW.create_time)
        IS DISTINCT FROM
        (OLD.metric_id, OLD.organization_id, OLD.mode, OLD.key, OLD.of_metric_id, OLD.create_time)
    THEN
        RAISE EXCEPTION 'what identifies a metric never changes';
    END IF;
    IF NEW.counted_id IS DISTINCT FROM OLD.counted_id THEN
        IF NOT EXISTS (
            SELECT FROM metrics AS built
            WHERE built.metric_id = NEW.counted_id AND built.of_metric_id = NEW.metric_id
                AND (built.aggregation, built.dimensions, built.unique_by, built.percentiles)
                    = (NEW.aggregation, NEW.dimensions, NEW.unique_by, NEW.percentiles)
        ) THEN
            RAISE EXCEPTION 'a metric counts only what was built for it, by that definition';
        END IF;
    ELSIF (NEW.aggregation, NEW.dimensions, NEW.unique_by, NEW.percentiles, NEW.defined)
        IS DISTINCT FROM
        (OLD.aggregation, OLD.dimensions, OLD.unique_by, OLD.percentiles, OLD.defined)
        AND (OLD.defined OR OLD.key IS NULL)
    THEN
        RAISE EXCEPTION 'a definition that was given never changes without what it counts';
    END IF;
    -- Of the rest the fold knows nothing.
    IF (NEW.aggregation, NEW.dimensions, NEW.unique_by, NEW.percentiles, NEW.defined,
            NEW.counted_id, NEW.dimension_values_max)
        IS DISTINCT FROM
        (OLD.aggregation, OLD.dimensions, OLD.unique_by, OLD.percentiles, OLD.defined,
            OLD.counted_id, OLD.dimension_values_max)
    THEN
        UPDATE fold_state SET definition_version = definition_version + 1;
    END IF;
    RETURN NEW;
END
$$
"""

OLD_KEEP_METRICS = """
CREATE OR REPLACE FUNCTION keep_metrics() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'a metric is never deleted';
    END IF;
    IF (NEW.metric_id, NEW.organization_id, NEW.mode, NEW.key, NEW.create_time)
        IS DISTINCT FROM
        (OLD.metric_id, OLD.organization_id, OLD.mode, OLD.key, OLD.create_time)
    THEN
        RAISE EXCEPTION 'what identifies a metric never changes';
    END IF;
    IF OLD.defined AND NEW IS DISTINCT FROM OLD THEN
        RAISE EXCEPTION 'a definition that was given never changes';
    END IF;
    UPDATE fold_state SET definition_version = definition_version + 1;
    RETURN NEW;
END
$$
"""

_DETAILS = "(NEW.unique_by, NEW.percentiles) IS DISTINCT FROM (OLD.unique_by, OLD.percentiles)"

_SAME_COUNTED = " AND NEW.counted_id IS NOT DISTINCT FROM OLD.counted_id"

KEEP_DETAILS = """
CREATE TRIGGER keep_details BEFORE UPDATE ON metrics FOR EACH ROW
WHEN ({details}{same}) EXECUTE FUNCTION keep_details()
"""

KEEP_REBUILDS = """
CREATE FUNCTION keep_metric_rebuilds() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.rebuild_id, NEW.metric_id, NEW.start_time)
        IS DISTINCT FROM (OLD.rebuild_id, OLD.metric_id, OLD.start_time)
    THEN
        RAISE EXCEPTION 'what identifies a rebuild never changes';
    END IF;
    IF OLD.end_time IS NOT NULL AND (NEW.state, NEW.end_time, NEW.error, NEW.events_done)
        IS DISTINCT FROM (OLD.state, OLD.end_time, OLD.error, OLD.events_done)
    THEN
        RAISE EXCEPTION 'a rebuild ends once';
    END IF;
    IF (NEW.end_time, NEW.state) IS DISTINCT FROM (OLD.end_time, OLD.state) THEN
        -- Folds that remember what is built by it ask again.
        UPDATE fold_state SET definition_version = definition_version + 1;
    END IF;
    RETURN NEW;
END
$$
"""

TRIGGERS = (
    "CREATE TRIGGER count_metric_by_itself BEFORE INSERT ON metrics "
    "FOR EACH ROW EXECUTE FUNCTION count_metric_by_itself()",
    "DROP TRIGGER keep_details ON metrics",
    KEEP_DETAILS.format(details=_DETAILS, same=_SAME_COUNTED),
    "CREATE TRIGGER keep_metric_rebuilds BEFORE UPDATE ON metric_rebuilds "
    "FOR EACH ROW EXECUTE FUNCTION keep_metric_rebuilds()",
)


def upgrade() -> None:
    """Make the columns, the table and the triggers; every metric counts by itself."""
    for statement in (*METRICS, INBOX, REBUILDS, RUNNING, LATEST):
        op.execute(statement)
    for statement in (COUNT_BY_ITSELF, KEEP_METRICS, KEEP_REBUILDS, *TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade; the database refuses it once a metric was built anew."""
    op.execute(OLD_KEEP_METRICS)
    op.execute("DROP TRIGGER keep_details ON metrics")
    op.execute(KEEP_DETAILS.format(details=_DETAILS, same=""))
    op.drop_table("metric_rebuilds")
    op.execute("DROP FUNCTION keep_metric_rebuilds()")
    op.execute("DROP TRIGGER count_metric_by_itself ON metrics")
    op.execute("DROP FUNCTION count_metric_by_itself()")
    op.drop_column("inbox", "definition_version")
    op.execute("ALTER TABLE metrics ALTER key SET NOT NULL")
    for column in ("billed_time", "archive_time", "of_metric_id", "counted_id"):
        op.drop_column("metrics", column)
