"""Phases of subscriptions: what each is on when, with trials and pauses.

Phases abut from a subscription's start to its end: two never overlap, and none is missing. What is
invoiced keeps its phases. Nor do two invoices of periods of a subscription overlap, void ones
included. An exclusion constraint compares texts with btree_gist, which comes with PostgreSQL.
"""

from alembic import op

revision = "0011"
down_revision = "0013"

STATEMENTS = (
    "CREATE EXTENSION IF NOT EXISTS btree_gist",
    """
    CREATE TABLE subscription_phases (
        organization_id text NOT NULL,
        mode text NOT NULL,
        subscription_id text NOT NULL,
        start_time timestamptz NOT NULL,
        end_time timestamptz,
        kind text NOT NULL,
        plan_id text NOT NULL,
        plan_version integer NOT NULL,
        billing_period text NOT NULL,
        anchor_time timestamptz NOT NULL,
        quantity integer NOT NULL,
        create_time timestamptz NOT NULL,
        CONSTRAINT pk_subscription_phases
            PRIMARY KEY (organization_id, mode, subscription_id, start_time),
        CONSTRAINT fk_subscription_phases_subscriptions
            FOREIGN KEY (organization_id, mode, subscription_id) REFERENCES subscriptions,
        CONSTRAINT fk_subscription_phases_plan_versions
            FOREIGN KEY (organization_id, mode, plan_id, plan_version) REFERENCES plan_versions,
        CONSTRAINT ex_subscription_phases_time EXCLUDE USING gist (
            subscription_id WITH =, organization_id WITH =, mode WITH =,
            tstzrange(start_time, end_time) WITH &&
        ),
        CONSTRAINT ck_subscription_phases_time CHECK (start_time < end_time),
        CONSTRAINT ck_subscription_phases_kind CHECK (kind IN ('TRIAL', 'BILLED', 'PAUSED')),
        CONSTRAINT ck_subscription_phases_trial CHECK (kind <> 'TRIAL' OR end_time IS NOT NULL),
        CONSTRAINT ck_subscription_phases_billing_period
            CHECK (billing_period IN ('WEEKLY', 'MONTHLY', 'QUARTERLY', 'YEARLY')),
        CONSTRAINT ck_subscription_phases_quantity CHECK (quantity BETWEEN 1 AND 1000000),
        CONSTRAINT ck_subscription_phases_quarter_hours CHECK (
            start_time = date_bin('15 minutes', start_time, 'epoch')
            AND end_time = date_bin('15 minutes', end_time, 'epoch')
            AND anchor_time = date_bin('15 minutes', anchor_time, 'epoch')
        )
    )
    """,
    # Those that never began have none.
    """
    INSERT INTO subscription_phases (
        organization_id, mode, subscription_id, start_time, end_time, kind, plan_id, plan_version,
        billing_period, anchor_time, quantity, create_time
    )
    SELECT organization_id, mode, id, start_time, cancel_time, 'BILLED', plan_id, plan_version,
        billing_period, start_time, 1, create_time
    FROM subscriptions
    WHERE cancel_time IS NULL OR cancel_time > start_time
    """,
    """
    ALTER TABLE subscriptions
    ADD COLUMN idle boolean NOT NULL DEFAULT false,
    ADD COLUMN late_check_time timestamptz,
    DROP CONSTRAINT ck_subscriptions_opening,
    ADD CONSTRAINT ck_subscriptions_opening
        CHECK (NOT opening OR (period_start IS NOT NULL AND NOT idle)),
    ADD CONSTRAINT ck_subscriptions_late_check_time
        CHECK (late_check_time IS NULL OR (period_start IS NULL AND cancel_time < late_check_time))
    """,
    "DROP INDEX ix_subscriptions_opening",
    "CREATE INDEX ix_subscriptions_opening ON subscriptions (period_start) WHERE opening",
    "CREATE INDEX ix_subscriptions_idle ON subscriptions (period_end) WHERE idle",
    """
    CREATE INDEX ix_subscriptions_late_check_time ON subscriptions (late_check_time)
    WHERE late_check_time IS NOT NULL
    """,
    """
    ALTER TABLE invoices
    DROP CONSTRAINT ck_invoices_kind,
    ADD CONSTRAINT ck_invoices_kind CHECK (kind IN ('PERIOD', 'OPENING', 'CHARGE', 'LATE')),
    ADD CONSTRAINT ex_invoices_period EXCLUDE USING gist (
        subscription_id WITH =, organization_id WITH =, mode WITH =,
        tstzrange(period_start, period_end) WITH &&
    ) WHERE (kind = 'PERIOD')
    """,
)

# A subscription's first period that is not invoiced begins at period_start; none is left: NULL.
KEEP_PHASE = """
CREATE FUNCTION keep_subscription_phase() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    whose subscription_phases := CASE TG_OP WHEN 'INSERT' THEN NEW ELSE OLD END;
    not_invoiced timestamptz;
BEGIN
    SELECT coalesce(period_start, 'infinity') INTO not_invoiced FROM subscriptions
    WHERE (organization_id, mode, id)
        = (whose.organization_id, whose.mode, whose.subscription_id);
    IF TG_OP = 'UPDATE' THEN
        IF to_jsonb(NEW) - 'end_time' IS DISTINCT FROM to_jsonb(OLD) - 'end_time' THEN
            RAISE EXCEPTION 'nothing of a phase changes but its end'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF least(coalesce(OLD.end_time, 'infinity'), coalesce(NEW.end_time, 'infinity'))
            < not_invoiced
        THEN
            RAISE EXCEPTION 'what is invoiced keeps its phases'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF whose.start_time < not_invoiced THEN
        RAISE EXCEPTION 'what is invoiced keeps its phases'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN whose;
END
$$
"""

# At the commit: from start to end without a gap. That none overlap is the exclusion's.
CHECK_PHASES = """
CREATE FUNCTION check_subscription_phases() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    row jsonb := to_jsonb(CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END);
    of subscriptions;
    abut boolean;
    ended timestamptz;
BEGIN
    SELECT * INTO of FROM subscriptions
    WHERE (organization_id, mode, id)
        = (row->>'organization_id', row->>'mode', coalesce(row->>'subscription_id', row->>'id'));
    SELECT coalesce(bool_and(start_time = before), true), coalesce(max(until), of.start_time)
    INTO abut, ended FROM (
        SELECT start_time, coalesce(end_time, 'infinity') AS until,
            lag(coalesce(end_time, 'infinity'), 1, of.start_time)
                OVER (ORDER BY start_time) AS before
        FROM subscription_phases
        WHERE (organization_id, mode, subscription_id) = (of.organization_id, of.mode, of.id)
    ) AS phases;
    IF NOT abut OR ended <> coalesce(of.cancel_time, 'infinity') THEN
        RAISE EXCEPTION 'the phases of a subscription abut from its start to its end'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$
"""

# Before the first period is over what is due at its start may still change.
KEEP_OPENING = """
CREATE FUNCTION keep_subscription_opening() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.period_start IS NOT DISTINCT FROM OLD.period_start AND (
        NEW.period_start <> NEW.start_time OR EXISTS (
            SELECT FROM invoices WHERE (organization_id, mode, subscription_id)
                = (NEW.organization_id, NEW.mode, NEW.id)
        )
    ) THEN
        RAISE EXCEPTION 'an opening comes with the period that it opens'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$
"""

TRIGGERS = (
    "CREATE TRIGGER keep_subscription_phase BEFORE INSERT OR UPDATE OR DELETE "
    "ON subscription_phases FOR EACH ROW EXECUTE FUNCTION keep_subscription_phase()",
    "CREATE TRIGGER keep_all BEFORE TRUNCATE ON subscription_phases "
    "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
    "CREATE CONSTRAINT TRIGGER check_subscription_phases AFTER INSERT OR UPDATE OR DELETE "
    "ON subscription_phases DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION check_subscription_phases()",
    "CREATE CONSTRAINT TRIGGER check_new_subscription_phases AFTER INSERT ON subscriptions "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_subscription_phases()",
    "CREATE CONSTRAINT TRIGGER check_ended_subscription_phases AFTER UPDATE ON subscriptions "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
    "WHEN (NEW.cancel_time IS DISTINCT FROM OLD.cancel_time) "
    "EXECUTE FUNCTION check_subscription_phases()",
    "CREATE TRIGGER keep_subscription_opening BEFORE UPDATE ON subscriptions "
    "FOR EACH ROW WHEN (NEW.opening AND NOT OLD.opening) "
    "EXECUTE FUNCTION keep_subscription_opening()",
)

UNDO = (
    "DROP FUNCTION keep_subscription_opening() CASCADE",
    "DROP FUNCTION check_subscription_phases() CASCADE",
    """
    ALTER TABLE invoices
    DROP CONSTRAINT ex_invoices_period,
    DROP CONSTRAINT ck_invoices_kind,
    ADD CONSTRAINT ck_invoices_kind CHECK (kind IN ('PERIOD', 'OPENING', 'CHARGE'))
    """,
    "DROP INDEX ix_subscriptions_late_check_time",
    "DROP INDEX ix_subscriptions_idle",
    "DROP INDEX ix_subscriptions_opening",
    """
    ALTER TABLE subscriptions
    DROP CONSTRAINT ck_subscriptions_late_check_time,
    DROP CONSTRAINT ck_subscriptions_opening,
    DROP COLUMN late_check_time,
    DROP COLUMN idle,
    ADD CONSTRAINT ck_subscriptions_opening
        CHECK (NOT opening OR period_start IS NOT DISTINCT FROM start_time)
    """,
    "CREATE INDEX ix_subscriptions_opening ON subscriptions (start_time) WHERE opening",
    "DROP TABLE subscription_phases",
    "DROP FUNCTION keep_subscription_phase()",
    "DROP EXTENSION btree_gist",
)


def upgrade() -> None:
    """Give each subscription the phase that it has been in."""
    for statement in (*STATEMENTS, KEEP_PHASE, CHECK_PHASES, KEEP_OPENING, *TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade; changes of plan are forgotten, and the database refuses it while there are
    invoices of late usage or openings later than a start.
    """
    for statement in UNDO:
        op.execute(statement)
