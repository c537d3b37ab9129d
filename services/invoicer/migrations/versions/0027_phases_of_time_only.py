"""Each change has its second: phases of time only, and from which second on time is not invoiced.

Several changes may be made in one quarter of an hour, whose usage is of the last one. The others
are phases without usage: start_time and end_time are the same quarter. What is invoiced by time no
longer follows from where usage is cut: invoices of periods and subscriptions keep it, and no second
is in two invoices.
"""

from alembic import op

revision = "0027"
down_revision = "0026"

# User triggers, not those of foreign keys: what was before is told in the new words, and unchanged.
_QUIETLY = (
    "ALTER TABLE {table} DISABLE TRIGGER USER",
    "{statement}",
    "ALTER TABLE {table} ENABLE TRIGGER USER",
)

PHASES = """
    ALTER TABLE subscription_phases
    ADD COLUMN exact_anchor_time timestamptz,
    ADD COLUMN priced_from timestamptz NOT NULL
        GENERATED ALWAYS AS (coalesce(exact_start_time, start_time)) STORED,
    ADD CONSTRAINT ck_subscription_phases_exact_anchor_time CHECK (
        exact_anchor_time = date_trunc('second', exact_anchor_time)
        AND exact_anchor_time > anchor_time
        AND exact_anchor_time < anchor_time + interval '15 minutes'
    ),
    DROP CONSTRAINT ck_subscription_phases_time,
    -- Usage, or time, or both.
    ADD CONSTRAINT ck_subscription_phases_time CHECK (
        end_time IS NULL OR start_time < end_time OR (
            start_time = end_time
            AND coalesce(exact_start_time, start_time) < coalesce(exact_end_time, end_time)
        )
    ),
    DROP CONSTRAINT pk_subscription_phases,
    ADD CONSTRAINT pk_subscription_phases
        PRIMARY KEY (organization_id, mode, subscription_id, start_time, priced_from),
    ADD CONSTRAINT ex_subscription_phases_exact_time EXCLUDE USING gist (
        subscription_id WITH =, organization_id WITH =, mode WITH =,
        tstzrange(priced_from, coalesce(exact_end_time, end_time)) WITH &&
    )
"""

# On the calendar an amount off was always for the first period from its second on.
ANCHORS = """
    UPDATE subscription_phases p SET exact_anchor_time = first.exact_start_time
    FROM subscription_phases first, subscriptions s
    WHERE (first.organization_id, first.mode, first.subscription_id, first.start_time)
            = (p.organization_id, p.mode, p.subscription_id, p.anchor_time)
        AND first.anchor_time = p.anchor_time AND first.exact_start_time > p.anchor_time
        AND (s.organization_id, s.mode, s.id) = (p.organization_id, p.mode, p.subscription_id)
        AND s.billing_anchor = 'CALENDAR'
"""

SUBSCRIPTIONS = """
    ALTER TABLE subscriptions
    ADD COLUMN exact_period_start timestamptz,
    -- Where a pause begins it may lie in the quarter of an hour before.
    ADD CONSTRAINT ck_subscriptions_exact_period_start CHECK (
        exact_period_start IS NULL OR (
            period_start IS NOT NULL
            AND exact_period_start = date_trunc('second', exact_period_start)
            AND exact_period_start >= period_start - interval '15 minutes'
            AND exact_period_start < period_start + interval '15 minutes'
        )
    )
"""

SECONDS = """
    UPDATE subscriptions s SET exact_period_start = p.priced_from FROM subscription_phases p
    WHERE (p.organization_id, p.mode, p.subscription_id) = (s.organization_id, s.mode, s.id)
        AND p.start_time = s.period_start AND p.exact_start_time IS NOT NULL
"""

# Invoices from before keep none: what they bill by time is as phases tell.
INVOICES = """
    ALTER TABLE invoices
    ADD COLUMN exact_period_start timestamptz,
    ADD COLUMN exact_period_end timestamptz,
    ADD CONSTRAINT ck_invoices_exact_period CHECK (
        (exact_period_start IS NULL) = (exact_period_end IS NULL)
        AND (exact_period_start IS NULL OR (
            kind = 'PERIOD'
            AND exact_period_start <= exact_period_end
            AND exact_period_start = date_trunc('second', exact_period_start)
            AND exact_period_end = date_trunc('second', exact_period_end)
            AND exact_period_start >= period_start - interval '15 minutes'
            AND exact_period_start < period_start + interval '15 minutes'
            AND exact_period_end >= period_end - interval '15 minutes'
            AND exact_period_end < period_end + interval '15 minutes'
        ))
    ),
    ADD CONSTRAINT ex_invoices_exact_period EXCLUDE USING gist (
        subscription_id WITH =, organization_id WITH =, mode WITH =,
        tstzrange(exact_period_start, exact_period_end) WITH &&
    ) WHERE (exact_period_start IS NOT NULL)
"""

# At the commit, when the subscription has gone on.
CHECK_SECONDS = """
CREATE FUNCTION check_invoiced_seconds() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before invoices;
BEGIN
    SELECT * INTO before FROM invoices
    WHERE (subscription_id, organization_id, mode, kind)
            = (NEW.subscription_id, NEW.organization_id, NEW.mode, 'PERIOD')
        AND period_start < NEW.period_start
    ORDER BY period_start DESC LIMIT 1;
    IF before.period_end = NEW.period_start AND before.exact_period_end <> NEW.exact_period_start
        OR EXISTS (
            SELECT FROM subscriptions
            WHERE (organization_id, mode, id, period_start)
                    = (NEW.organization_id, NEW.mode, NEW.subscription_id, NEW.period_end)
                AND coalesce(exact_period_start, period_start) <> NEW.exact_period_end
        )
    THEN
        RAISE EXCEPTION 'an invoice bills time from where the one before it ended'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$
"""

# As it is since 0012 but for the exact times, where there are some: what was hashed before stays as
# it is.
_CONTENT = """
CREATE OR REPLACE FUNCTION invoice_content(of invoices) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    lines text;
    taxes text;
BEGIN
    SELECT coalesce(string_agg(
        '{"amount":' || canonical(amount)
        || ',"charge_id":' || canonical(charge_id)
        || ',"description":' || canonical(description)
        || ',"included_units":' || canonical(included_units)
        || ',"kind":' || canonical(kind)
        || ',"metric":' || canonical(metric)
        || ',"period_end":' || canonical(period_end)
        || ',"period_start":' || canonical(period_start)
        || ',"position":' || position::text
        || ',"quantity":' || canonical(quantity)
        || ',"steps":' || canonical(steps)
        || ',"unit_price":' || canonical(unit_price)
        || '}', ',' ORDER BY position), '')
    INTO lines FROM invoice_lines
    WHERE (organization_id, mode, invoice_id) = (of.organization_id, of.mode, of.id);
    SELECT coalesce(string_agg(
        '{"amount":' || canonical(amount)
        || ',"inclusive":' || inclusive::text
        || ',"name":' || canonical(name)
        || ',"percent":' || canonical(percent)
        || ',"position":' || position::text
        || ',"tax_rate_id":' || canonical(tax_rate_id)
        || ',"taxable":' || canonical(taxable)
        || '}', ',' ORDER BY position), '')
    INTO taxes FROM invoice_taxes
    WHERE (organization_id, mode, invoice_id) = (of.organization_id, of.mode, of.id);
    RETURN '{"amount":' || canonical(of.amount)
        || ',"create_time":' || canonical(of.create_time)
        || ',"currency":' || canonical(of.currency)
        || ',"customer_id":' || canonical(of.customer_id)
<exact times>        || ',"finalize_time":' || canonical(of.finalize_time)
        || ',"format"\\:1'
        || ',"id":' || canonical(of.id)
        || ',"kind":' || canonical(of.kind)
        || ',"lines":[' || lines || ']'
        || ',"mode":' || canonical(of.mode)
        || ',"number":' || canonical(of.number)
        || ',"organization_id":' || canonical(of.organization_id)
        || ',"period_end":' || canonical(of.period_end)
        || ',"period_start":' || canonical(of.period_start)
        || ',"plan_id":' || canonical(of.plan_id)
        || ',"plan_version":' || coalesce(of.plan_version::text, 'null')
        || ',"subscription_id":' || canonical(of.subscription_id)
        || ',"taxes":[' || taxes || ']'
        || ',"type":"invoice"}';
END
$$
"""
EXACT_TIMES = """        || CASE WHEN of.exact_period_start IS NULL THEN '' ELSE
            ',"exact_period_end":' || canonical(of.exact_period_end)
            || ',"exact_period_start":' || canonical(of.exact_period_start) END
"""
WITH_EXACT_TIMES = _CONTENT.replace("<exact times>", EXACT_TIMES)
WITHOUT = _CONTENT.replace("<exact times>", "")

KEEP_SECOND = """
CREATE FUNCTION keep_exact_period_start() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before timestamptz := coalesce(OLD.exact_period_start, OLD.period_start);
    after timestamptz := coalesce(NEW.exact_period_start, NEW.period_start);
BEGIN
    IF after < before OR (NEW.period_start = OLD.period_start AND after <> before) THEN
        RAISE EXCEPTION 'the second until which time is invoiced moves on with the period alone'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$
"""

_KEEP_PHASE = """
CREATE OR REPLACE FUNCTION keep_subscription_phase() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    whose subscription_phases := CASE TG_OP WHEN 'INSERT' THEN NEW ELSE OLD END;
    not_invoiced timestamptz;{declared}
BEGIN
    {selected}
    WHERE (organization_id, mode, id)
        = (whose.organization_id, whose.mode, whose.subscription_id);
    IF TG_OP = 'UPDATE' THEN
        IF to_jsonb(NEW) - {ends} IS DISTINCT FROM to_jsonb(OLD) - {ends} THEN
            RAISE EXCEPTION 'nothing of a phase changes but its end'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF least(coalesce(OLD.end_time, 'infinity'), coalesce(NEW.end_time, 'infinity'))
            < not_invoiced {updated}
        THEN
            RAISE EXCEPTION 'what is invoiced keeps its phases'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF whose.start_time < not_invoiced{other} THEN
        RAISE EXCEPTION 'what is invoiced keeps its phases'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN whose;
END
$$
"""
KEEP_PHASE = _KEEP_PHASE.format(
    declared="""
    not_priced timestamptz;""",
    selected="""SELECT coalesce(period_start, 'infinity'),
        coalesce(exact_period_start, period_start, 'infinity')
    INTO not_invoiced, not_priced FROM subscriptions""",
    # What is generated is not known yet before a row is written.
    ends="ARRAY['end_time', 'exact_end_time', 'priced_from']",
    updated="""OR least(
                coalesce(OLD.exact_end_time, OLD.end_time, 'infinity'),
                coalesce(NEW.exact_end_time, NEW.end_time, 'infinity')
            ) < not_priced""",
    other=" OR coalesce(whose.exact_start_time, whose.start_time) < not_priced",
)
KEEP_PHASE_BEFORE = _KEEP_PHASE.format(
    declared="",
    selected="SELECT coalesce(period_start, 'infinity') INTO not_invoiced FROM subscriptions",
    ends="ARRAY['end_time', 'exact_end_time']",
    updated="""OR (
                OLD.kind = 'BILLED' AND OLD.start_time < not_invoiced
                AND CASE WHEN OLD.end_time <= not_invoiced THEN OLD.exact_end_time END
                    IS DISTINCT FROM
                    CASE WHEN NEW.end_time <= not_invoiced THEN NEW.exact_end_time END
            )""",
    other="",
)

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
    SELECT coalesce(bool_and(start_time = before AND exact_start = exact_before), true),
        coalesce(max(until), of.start_time)
    INTO abut, ended FROM (
        SELECT start_time, coalesce(exact_start_time, start_time) AS exact_start,
            lag(coalesce(exact_end_time, end_time), 1, coalesce(exact_start_time, start_time))
                OVER (ORDER BY {order}) AS exact_before,
            coalesce(end_time, 'infinity') AS until,
            lag(coalesce(end_time, 'infinity'), 1, of.start_time)
                OVER (ORDER BY {order}) AS before
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
CHECK_PHASES = _CHECK_PHASES.format(order="start_time, priced_from")
CHECK_PHASES_BEFORE = _CHECK_PHASES.format(order="start_time")

STATEMENTS = (
    PHASES,
    *(each.format(table="subscription_phases", statement=ANCHORS) for each in _QUIETLY),
    SUBSCRIPTIONS,
    *(each.format(table="subscriptions", statement=SECONDS) for each in _QUIETLY),
    INVOICES,
    WITH_EXACT_TIMES,
    KEEP_PHASE,
    CHECK_PHASES,
    KEEP_SECOND,
    CHECK_SECONDS,
    "CREATE TRIGGER keep_exact_period_start BEFORE UPDATE ON subscriptions "
    "FOR EACH ROW EXECUTE FUNCTION keep_exact_period_start()",
    "CREATE CONSTRAINT TRIGGER check_invoiced_seconds AFTER INSERT ON invoices "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.exact_period_start IS NOT NULL) "
    "EXECUTE FUNCTION check_invoiced_seconds()",
)
UNDO = (
    WITHOUT,
    "DROP FUNCTION keep_exact_period_start(), check_invoiced_seconds() CASCADE",
    """
    ALTER TABLE invoices
    DROP CONSTRAINT ex_invoices_exact_period,
    DROP COLUMN exact_period_start,
    DROP COLUMN exact_period_end
    """,
    CHECK_PHASES_BEFORE,
    KEEP_PHASE_BEFORE,
    "ALTER TABLE subscriptions DROP COLUMN exact_period_start",
    """
    ALTER TABLE subscription_phases
    DROP CONSTRAINT ex_subscription_phases_exact_time,
    DROP CONSTRAINT pk_subscription_phases,
    ADD CONSTRAINT pk_subscription_phases
        PRIMARY KEY (organization_id, mode, subscription_id, start_time),
    DROP CONSTRAINT ck_subscription_phases_time,
    ADD CONSTRAINT ck_subscription_phases_time CHECK (start_time < end_time),
    DROP COLUMN priced_from,
    DROP COLUMN exact_anchor_time
    """,
)


def upgrade() -> None:
    """Make the columns and constraints, and let the triggers look at seconds."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade; the database refuses it while there are phases of time only. Hashes of invoices
    whose exact times are gone stay, and are not those of what is left.
    """
    for statement in UNDO:
        op.execute(statement)
