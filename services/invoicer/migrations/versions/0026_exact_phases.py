"""Phases are billed by time to the second, while usage stays cut at quarters of an hour.

Where one ends for what is priced by time, the next one begins. What is invoiced keeps that second.
Phases from before have none: they are billed by time as usage is.
"""

from alembic import op

revision = "0026"
down_revision = "0025"

COLUMNS = """
    ALTER TABLE subscription_phases
    ADD COLUMN exact_start_time timestamptz,
    ADD COLUMN exact_end_time timestamptz,
    -- What begins does so within its first quarter of an hour; a pause, which bills nothing, also
    -- in the one before.
    ADD CONSTRAINT ck_subscription_phases_exact_start_time CHECK (
        exact_start_time = date_trunc('second', exact_start_time)
        AND exact_start_time < start_time + interval '15 minutes'
        AND exact_start_time >= start_time - CASE kind
            WHEN 'PAUSED' THEN interval '15 minutes' ELSE interval '0' END
    ),
    ADD CONSTRAINT ck_subscription_phases_exact_end_time CHECK (
        exact_end_time IS NULL OR (
            end_time IS NOT NULL
            AND exact_end_time = date_trunc('second', exact_end_time)
            AND exact_end_time >= end_time - interval '15 minutes'
            AND exact_end_time < end_time + interval '15 minutes'
        )
    ),
    ADD CONSTRAINT ck_subscription_phases_exact_time CHECK (
        coalesce(exact_start_time, start_time) <= coalesce(exact_end_time, end_time)
    )
"""

_KEEP_PHASE = """
CREATE OR REPLACE FUNCTION keep_subscription_phase() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    whose subscription_phases := CASE TG_OP WHEN 'INSERT' THEN NEW ELSE OLD END;
    not_invoiced timestamptz;
BEGIN
    SELECT coalesce(period_start, 'infinity') INTO not_invoiced FROM subscriptions
    WHERE (organization_id, mode, id)
        = (whose.organization_id, whose.mode, whose.subscription_id);
    IF TG_OP = 'UPDATE' THEN
        IF to_jsonb(NEW) - {ends} IS DISTINCT FROM to_jsonb(OLD) - {ends} THEN
            RAISE EXCEPTION 'nothing of a phase changes but its end'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF least(coalesce(OLD.end_time, 'infinity'), coalesce(NEW.end_time, 'infinity'))
            < not_invoiced {exact}
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
# Without the second until which it is invoiced that would be the end of the quarter of an hour.
KEEP_PHASE = _KEEP_PHASE.format(
    ends="ARRAY['end_time', 'exact_end_time']",
    exact="""OR (
                OLD.kind = 'BILLED' AND OLD.start_time < not_invoiced
                AND CASE WHEN OLD.end_time <= not_invoiced THEN OLD.exact_end_time END
                    IS DISTINCT FROM
                    CASE WHEN NEW.end_time <= not_invoiced THEN NEW.exact_end_time END
            )""",
)
KEEP_PHASE_BEFORE = _KEEP_PHASE.format(ends="'end_time'", exact="")

_CHECK_PHASES = """
CREATE OR REPLACE FUNCTION check_subscription_phases() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    row jsonb := to_jsonb(CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END);
    of subscriptions;
    abut boolean;
    ended timestamptz;
BEGIN
    SELECT * INTO of FROM subscriptions
    WHERE (organization_id, mode, id)
        = (row->>'organization_id', row->>'mode', coalesce(row->>'subscription_id', row->>'id'));
    SELECT coalesce(bool_and(start_time = before{exact}), true),
        coalesce(max(until), of.start_time)
    INTO abut, ended FROM (
        SELECT start_time, {columns}coalesce(end_time, 'infinity') AS until,
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
CHECK_PHASES = _CHECK_PHASES.format(
    exact=" AND exact_start = exact_before",
    columns="""coalesce(exact_start_time, start_time) AS exact_start,
            lag(coalesce(exact_end_time, end_time), 1, coalesce(exact_start_time, start_time))
                OVER (ORDER BY start_time) AS exact_before,
            """,
)
CHECK_PHASES_BEFORE = _CHECK_PHASES.format(exact="", columns="")

STATEMENTS = (COLUMNS, KEEP_PHASE, CHECK_PHASES)
UNDO = (
    KEEP_PHASE_BEFORE,
    CHECK_PHASES_BEFORE,
    "ALTER TABLE subscription_phases DROP COLUMN exact_start_time, DROP COLUMN exact_end_time",
)


def upgrade() -> None:
    """Make the columns, and let the triggers look at them."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade; what is not invoiced is then billed by time as usage is."""
    for statement in UNDO:
        op.execute(statement)
