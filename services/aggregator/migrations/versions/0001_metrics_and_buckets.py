"""Metrics, series, buckets, and what the fold needs to count each batch once.

What identifies a metric or a series never changes, a definition that somebody gave never changes,
and what the fold relies on only goes forward: the database sees to it.
"""

from alembic import op

revision = "0001"
down_revision = None

METRICS = """
CREATE TABLE metrics (
    metric_id bigint GENERATED ALWAYS AS IDENTITY,
    organization_id text NOT NULL,
    mode text NOT NULL,
    key text NOT NULL,
    name text NOT NULL,
    unit text NOT NULL,
    aggregation text NOT NULL,
    dimensions text[] NOT NULL,
    unique_by text NOT NULL,
    defined boolean NOT NULL,
    create_time timestamptz NOT NULL,
    CONSTRAINT pk_metrics PRIMARY KEY (metric_id),
    CONSTRAINT uq_metrics_organization_id_mode_key UNIQUE (organization_id, mode, key),
    CONSTRAINT ck_metrics_mode CHECK (mode IN ('live', 'test')),
    CONSTRAINT ck_metrics_key CHECK (key ~ '^[A-Za-z0-9_.:-]{1,128}$'),
    CONSTRAINT ck_metrics_name CHECK (char_length(name) <= 200),
    CONSTRAINT ck_metrics_unit CHECK (char_length(unit) <= 50),
    CONSTRAINT ck_metrics_aggregation CHECK (
        aggregation IN ('SUM', 'COUNT', 'MAX', 'MIN', 'AVG', 'LATEST', 'UNIQUE_COUNT')
    ),
    CONSTRAINT ck_metrics_dimensions CHECK (cardinality(dimensions) <= 8),
    CONSTRAINT ck_metrics_unique_by CHECK ((unique_by <> '') = (aggregation = 'UNIQUE_COUNT')),
    CONSTRAINT ck_metrics_defined CHECK (
        defined OR (aggregation = 'SUM' AND dimensions = '{}' AND name = '' AND unit = '')
    )
)
"""

SERIES = """
CREATE TABLE series (
    series_id bigint GENERATED ALWAYS AS IDENTITY,
    metric_id bigint NOT NULL,
    series_key bytea NOT NULL,
    customer_id text NOT NULL,
    dimensions jsonb NOT NULL,
    CONSTRAINT pk_series PRIMARY KEY (series_id),
    CONSTRAINT fk_series_metric_id_metrics FOREIGN KEY (metric_id) REFERENCES metrics (metric_id),
    CONSTRAINT uq_series_metric_id_series_key UNIQUE (metric_id, series_key),
    CONSTRAINT ck_series_series_key CHECK (octet_length(series_key) = 16),
    CONSTRAINT ck_series_customer_id CHECK (char_length(customer_id) <= 255),
    CONSTRAINT ck_series_dimensions CHECK (jsonb_typeof(dimensions) = 'object')
)
"""

USAGE_BUCKETS = """
CREATE TABLE usage_buckets (
    series_id bigint NOT NULL,
    bucket_start timestamptz NOT NULL,
    event_count bigint NOT NULL,
    amount_sum numeric NOT NULL,
    amount_min numeric NOT NULL,
    amount_max numeric NOT NULL,
    latest_time timestamptz NOT NULL,
    latest_event_id bytea NOT NULL,
    latest_value numeric NOT NULL,
    CONSTRAINT pk_usage_buckets PRIMARY KEY (series_id, bucket_start),
    CONSTRAINT fk_usage_buckets_series_id_series
        FOREIGN KEY (series_id) REFERENCES series (series_id),
    CONSTRAINT ck_usage_buckets_bucket_start CHECK (
        bucket_start = date_bin('15 minutes', bucket_start, 'epoch'::timestamptz)
    ),
    CONSTRAINT ck_usage_buckets_event_count CHECK (event_count > 0),
    CONSTRAINT ck_usage_buckets_amounts CHECK (
        amount_min >= 0 AND amount_min <= amount_max AND amount_max <= amount_sum
        AND amount_sum < 'Infinity'
    ),
    CONSTRAINT ck_usage_buckets_latest CHECK (
        latest_value BETWEEN amount_min AND amount_max AND octet_length(latest_event_id) = 16
        AND latest_time >= bucket_start AND latest_time < bucket_start + interval '15 minutes'
    )
) WITH (fillfactor = 80)
"""

CUSTOMERS_SEEN = """
CREATE TABLE customers_seen (
    organization_id text NOT NULL,
    mode text NOT NULL,
    customer_id text NOT NULL,
    CONSTRAINT pk_customers_seen PRIMARY KEY (organization_id, mode, customer_id),
    CONSTRAINT ck_customers_seen_mode CHECK (mode IN ('live', 'test')),
    CONSTRAINT ck_customers_seen_customer_id CHECK (char_length(customer_id) BETWEEN 1 AND 255)
)
"""

FOLD_STATE = """
CREATE TABLE fold_state (
    only_row boolean NOT NULL,
    definition_version bigint NOT NULL,
    inbox_horizon timestamptz,
    watermark timestamptz,
    CONSTRAINT pk_fold_state PRIMARY KEY (only_row),
    CONSTRAINT ck_fold_state_only_row CHECK (only_row),
    CONSTRAINT ck_fold_state_inbox_horizon CHECK (inbox_horizon <= watermark)
)
"""

INBOX = """
CREATE TABLE inbox (
    message_id text NOT NULL,
    receive_time timestamptz NOT NULL DEFAULT now(),
    accept_time timestamptz NOT NULL,
    CONSTRAINT pk_inbox PRIMARY KEY (message_id)
)
"""

OUTBOX = """
CREATE TABLE outbox (
    message_id text NOT NULL,
    subject text NOT NULL,
    payload bytea NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_outbox PRIMARY KEY (message_id)
)
"""

INDEXES = (
    "CREATE INDEX ix_metrics_organization_id_mode_metric_id "
    "ON metrics (organization_id, mode, metric_id)",
    "CREATE INDEX ix_series_metric_id_customer_id ON series (metric_id, customer_id)",
    "CREATE INDEX ix_inbox_accept_time ON inbox (accept_time)",
)

KEEP_METRICS = """
CREATE FUNCTION keep_metrics() RETURNS trigger LANGUAGE plpgsql AS $$
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

KEEP_SERIES = """
CREATE FUNCTION keep_series() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a series never changes';
END
$$
"""

KEEP_FOLD_STATE = """
CREATE FUNCTION keep_fold_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'the state of the fold is never deleted';
    END IF;
    IF NEW.definition_version < OLD.definition_version
        OR coalesce(NEW.inbox_horizon, '-infinity') < coalesce(OLD.inbox_horizon, '-infinity')
        OR coalesce(NEW.watermark, '-infinity') < coalesce(OLD.watermark, '-infinity')
    THEN
        RAISE EXCEPTION 'the state of the fold never goes back';
    END IF;
    RETURN NEW;
END
$$
"""

TRIGGERS = (
    "CREATE TRIGGER keep_metrics BEFORE UPDATE OR DELETE ON metrics "
    "FOR EACH ROW EXECUTE FUNCTION keep_metrics()",
    "CREATE TRIGGER keep_series BEFORE UPDATE ON series "
    "FOR EACH ROW EXECUTE FUNCTION keep_series()",
    "CREATE TRIGGER keep_fold_state BEFORE UPDATE OR DELETE ON fold_state "
    "FOR EACH ROW EXECUTE FUNCTION keep_fold_state()",
)

TABLES = (METRICS, SERIES, USAGE_BUCKETS, CUSTOMERS_SEEN, FOLD_STATE, INBOX, OUTBOX)
FUNCTIONS = (KEEP_METRICS, KEEP_SERIES, KEEP_FOLD_STATE)


def upgrade() -> None:
    """Make the tables, the indexes, the triggers, and the one row of fold_state."""
    for statement in (*TABLES, *INDEXES, *FUNCTIONS, *TRIGGERS):
        op.execute(statement)
    op.execute("INSERT INTO fold_state (only_row, definition_version) VALUES (true, 1)")


def downgrade() -> None:
    """Undo upgrade."""
    for table in ("outbox", "inbox", "fold_state", "customers_seen", "usage_buckets", "series"):
        op.drop_table(table)
    op.drop_table("metrics")
    for function in ("keep_fold_state", "keep_series", "keep_metrics"):
        op.execute(f"DROP FUNCTION {function}()")
