"""Usage of four hours and of days, kept equal to the buckets by the database itself.

Whoever writes to usage_buckets, the trigger keep_rollups does to usage_rollups what belongs to it,
in the same transaction, for all that lies before rollup_state.kept_until. Two advisory locks make
that exact; both end with the transaction:

- (5, 1), shared by everybody who writes buckets, alone by whoever moves kept_until: when it has
  moved, no transaction is under way that relied on where it was.
- (5, 2), held alone by whoever writes rollups. What a transaction adds it adds under the lock, and
  what is counted anew from the buckets is read under the lock: either all of another transaction is
  in the buckets and the rollups that are seen then, or nothing of it is.

Usage of now lies behind kept_until: to count it nobody takes the second lock.
"""

from alembic import op

revision = "0005"
down_revision = "0009"

USAGE_ROLLUPS = """
CREATE TABLE usage_rollups (
    series_id bigint NOT NULL,
    span_hours smallint NOT NULL,
    span_start timestamptz NOT NULL,
    metric_id bigint NOT NULL,
    event_count bigint NOT NULL,
    amount_sum numeric NOT NULL,
    amount_min numeric NOT NULL,
    amount_max numeric NOT NULL,
    latest_time timestamptz NOT NULL,
    latest_event_id bytea NOT NULL,
    latest_value numeric NOT NULL,
    extremes_exact boolean NOT NULL,
    CONSTRAINT pk_usage_rollups PRIMARY KEY (series_id, span_hours, span_start),
    CONSTRAINT fk_usage_rollups_series_id_series
        FOREIGN KEY (series_id) REFERENCES series (series_id),
    CONSTRAINT ck_usage_rollups_span_hours CHECK (span_hours IN (4, 24)),
    CONSTRAINT ck_usage_rollups_span_start CHECK (
        span_start = date_bin(span_hours * interval '1 hour', span_start, 'epoch'::timestamptz)
    ),
    CONSTRAINT ck_usage_rollups_event_count CHECK (event_count > 0),
    CONSTRAINT ck_usage_rollups_amounts CHECK (
        amount_sum >= 0 AND amount_sum < 'Infinity' AND (NOT extremes_exact OR
        (amount_min >= 0 AND amount_min <= amount_max AND amount_max < 'Infinity'))
    ),
    CONSTRAINT ck_usage_rollups_latest CHECK (
        NOT extremes_exact OR (latest_value BETWEEN amount_min AND amount_max
        AND octet_length(latest_event_id) = 16 AND latest_time >= span_start
        AND latest_time < span_start + span_hours * interval '1 hour')
    )
) WITH (fillfactor = 90)
"""

# All customers of a metric, span by span.
INDEX = (
    "CREATE INDEX ix_usage_rollups_metric_id_span_hours_span_start "
    "ON usage_rollups (metric_id, span_hours, span_start)"
)

ROLLUP_STATE = """
CREATE TABLE rollup_state (
    only_row boolean NOT NULL,
    kept_until timestamptz NOT NULL,
    rolled_until timestamptz NOT NULL,
    rolled_series_id bigint NOT NULL,
    CONSTRAINT pk_rollup_state PRIMARY KEY (only_row),
    CONSTRAINT ck_rollup_state_only_row CHECK (only_row),
    CONSTRAINT ck_rollup_state_rolled_until CHECK (rolled_until <= kept_until),
    CONSTRAINT ck_rollup_state_spans CHECK (
        kept_until = date_bin('4 hours', kept_until, 'epoch'::timestamptz)
        AND rolled_until = date_bin('4 hours', rolled_until, 'epoch'::timestamptz)
    )
)
"""

# Nobody can ask for anything earlier.
FIRST_STATE = (
    "INSERT INTO rollup_state (only_row, kept_until, rolled_until, rolled_series_id) "
    "VALUES (true, '2000-01-01 00:00Z', '2000-01-01 00:00Z', 0)"
)

_COLUMNS = """series_id, span_hours, span_start, metric_id, event_count, amount_sum, amount_min,
        amount_max, latest_time, latest_event_id, latest_value, extremes_exact"""

# Of rows with the columns of usage_buckets; a span is kept once the whole of it lies behind.
_COMBINED = """series_id, span_hours,
        date_bin(span_hours * interval '1 hour', bucket_start, 'epoch'::timestamptz), metric_id,
        sum(event_count), sum(amount_sum), min(amount_min), max(amount_max),
        (array_agg(latest_time ORDER BY latest_time DESC, latest_event_id DESC))[1],
        (array_agg(latest_event_id ORDER BY latest_time DESC, latest_event_id DESC))[1],
        (array_agg(latest_value ORDER BY latest_time DESC, latest_event_id DESC))[1],
        bool_and(extremes_exact)"""
_SPANS = "(VALUES (4::smallint), (24::smallint)) AS spans (span_hours)"
_IS_KEPT = "bucket_start < date_bin(span_hours * interval '1 hour', kept, 'epoch'::timestamptz)"

ROLL_UP = f"""
CREATE FUNCTION roll_up(ids bigint[], first_days timestamptz[], last_days timestamptz[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    kept timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(5, 2);
    PERFORM set_config('usageflow.rolling', 'on', true);
    SELECT kept_until INTO STRICT kept FROM rollup_state;
    DELETE FROM usage_rollups AS old
    USING unnest(ids, first_days, last_days) AS part (series_id, first_day, last_day)
    WHERE old.series_id = part.series_id AND old.span_hours IN (4, 24)
        AND old.span_start >= first_day AND old.span_start < last_day + interval '24 hours';
    INSERT INTO usage_rollups ({_COLUMNS})
    SELECT {_COMBINED}
    FROM unnest(ids, first_days, last_days) AS part (series_id, first_day, last_day)
    JOIN series USING (series_id) JOIN usage_buckets USING (series_id)
    CROSS JOIN {_SPANS}
    WHERE bucket_start >= first_day AND bucket_start < last_day + interval '24 hours'
        AND {_IS_KEPT}
    GROUP BY 1, 2, 3, 4;
    PERFORM set_config('usageflow.rolling', 'off', true);
END
$$
"""  # noqa: S608 (constants)

_ADD = f"""
    INSERT INTO usage_rollups AS known ({_COLUMNS})
    SELECT {_COMBINED}
    FROM {{changed}} AS changed JOIN series USING (series_id) CROSS JOIN {_SPANS}
    WHERE {_IS_KEPT}
    GROUP BY 1, 2, 3, 4
    ORDER BY 1, 2, 3
    ON CONFLICT (series_id, span_hours, span_start) DO UPDATE SET
        event_count = known.event_count + excluded.event_count,
        amount_sum = known.amount_sum + excluded.amount_sum,
        amount_min = least(known.amount_min, excluded.amount_min),
        amount_max = greatest(known.amount_max, excluded.amount_max),
        latest_time = CASE WHEN (excluded.latest_time, excluded.latest_event_id)
            > (known.latest_time, known.latest_event_id)
            THEN excluded.latest_time ELSE known.latest_time END,
        latest_event_id = CASE WHEN (excluded.latest_time, excluded.latest_event_id)
            > (known.latest_time, known.latest_event_id)
            THEN excluded.latest_event_id ELSE known.latest_event_id END,
        latest_value = CASE WHEN (excluded.latest_time, excluded.latest_event_id)
            > (known.latest_time, known.latest_event_id)
            THEN excluded.latest_value ELSE known.latest_value END,
        extremes_exact = known.extremes_exact AND excluded.extremes_exact;
"""  # noqa: S608 (constants)

# What an update has added; its extremes are the bucket's, which include what they were.
_ADDED = """(
        SELECT has.series_id, has.bucket_start, has.event_count - was.event_count AS event_count,
            has.amount_sum - was.amount_sum AS amount_sum, has.amount_min, has.amount_max,
            has.latest_time, has.latest_event_id, has.latest_value, has.extremes_exact
        FROM old_rows AS was JOIN new_rows AS has USING (series_id, bucket_start)
        WHERE bucket_start < kept
    )"""

KEEP_ROLLUPS = f"""
CREATE FUNCTION keep_rollups() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kept timestamptz;
    only_added boolean;
BEGIN
    -- Each statement here has to see what was committed while it waited for a lock.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'buckets are written in READ COMMITTED only';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(5, 1);
    SELECT kept_until INTO STRICT kept FROM rollup_state;
    IF TG_OP = 'INSERT' THEN
        IF EXISTS (SELECT FROM new_rows WHERE bucket_start < kept) THEN
            PERFORM pg_advisory_xact_lock(5, 2);
            {_ADD.format(changed="new_rows")}
        END IF;
        RETURN NULL;
    END IF;
    IF NOT EXISTS (SELECT FROM old_rows WHERE bucket_start < kept) THEN
        RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock(5, 2);
    IF TG_OP = 'UPDATE' THEN
        SELECT bool_and(was.extremes_exact AND has.extremes_exact
            AND has.event_count > was.event_count AND has.amount_sum >= was.amount_sum
            AND has.amount_min <= was.amount_min AND has.amount_max >= was.amount_max
            AND (has.latest_time, has.latest_event_id) >= (was.latest_time, was.latest_event_id))
        INTO only_added
        FROM old_rows AS was JOIN new_rows AS has USING (series_id, bucket_start)
        WHERE bucket_start < kept;
        IF only_added THEN
            {_ADD.format(changed=_ADDED)}
            RETURN NULL;
        END IF;
    END IF;
    PERFORM roll_up(array_agg(series_id), array_agg(day), array_agg(day))
    FROM (
        SELECT DISTINCT series_id, date_bin('24 hours', bucket_start, 'epoch'::timestamptz) AS day
        FROM old_rows WHERE bucket_start < kept
    ) AS changed;
    RETURN NULL;
END
$$
"""  # noqa: S608 (constants)

KEEP_BUCKETS = """
CREATE FUNCTION keep_buckets() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what identifies a bucket never changes';
END
$$
"""

ONLY_ROLLED = """
CREATE FUNCTION only_rolled() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() < 2
        AND current_setting('usageflow.rolling', true) IS DISTINCT FROM 'on'
    THEN
        RAISE EXCEPTION 'rollups are made of buckets only';
    END IF;
    RETURN NULL;
END
$$
"""

KEEP_ROLLUP_STATE = """
CREATE FUNCTION keep_rollup_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'the state of the rollups is never deleted';
    END IF;
    IF NEW.kept_until < OLD.kept_until OR NEW.rolled_until < OLD.rolled_until THEN
        RAISE EXCEPTION 'the state of the rollups never goes back';
    END IF;
    RETURN NEW;
END
$$
"""

TRIGGERS = (
    "CREATE TRIGGER keep_rollups_insert AFTER INSERT ON usage_buckets "
    "REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION keep_rollups()",
    "CREATE TRIGGER keep_rollups_update AFTER UPDATE ON usage_buckets "
    "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows "
    "FOR EACH STATEMENT EXECUTE FUNCTION keep_rollups()",
    "CREATE TRIGGER keep_rollups_delete AFTER DELETE ON usage_buckets "
    "REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION keep_rollups()",
    "CREATE TRIGGER keep_buckets BEFORE UPDATE OF series_id, bucket_start ON usage_buckets "
    "FOR EACH ROW EXECUTE FUNCTION keep_buckets()",
    "CREATE TRIGGER only_rolled BEFORE INSERT OR UPDATE OR DELETE ON usage_rollups "
    "FOR EACH STATEMENT EXECUTE FUNCTION only_rolled()",
    "CREATE TRIGGER keep_rollup_state BEFORE UPDATE OR DELETE ON rollup_state "
    "FOR EACH ROW EXECUTE FUNCTION keep_rollup_state()",
)
FUNCTIONS = (ROLL_UP, KEEP_ROLLUPS, KEEP_BUCKETS, ONLY_ROLLED, KEEP_ROLLUP_STATE)


def upgrade() -> None:
    """Make the tables, the functions and the triggers; nothing is rolled up yet."""
    for statement in (USAGE_ROLLUPS, INDEX, ROLLUP_STATE, FIRST_STATE, *FUNCTIONS, *TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade."""
    for trigger in ("insert", "update", "delete"):
        op.execute(f"DROP TRIGGER keep_rollups_{trigger} ON usage_buckets")
    op.execute("DROP TRIGGER keep_buckets ON usage_buckets")
    op.drop_table("rollup_state")
    op.drop_table("usage_rollups")
    arguments = "(bigint[], timestamptz[], timestamptz[])"
    op.execute(f"DROP FUNCTION roll_up{arguments}")
    for function in ("keep_rollups", "keep_buckets", "only_rolled", "keep_rollup_state"):
        op.execute(f"DROP FUNCTION {function}()")
