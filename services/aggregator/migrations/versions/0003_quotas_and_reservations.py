"""Quotas, and units set aside.

What a reservation promises never changes, and it ends once: the database sees to it.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

QUOTAS = """
CREATE TABLE quotas (
    quota_id text NOT NULL,
    metric_id bigint NOT NULL,
    customer_id text NOT NULL,
    period text NOT NULL,
    limit_amount numeric,
    enforcement text NOT NULL,
    time_zone text NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    CONSTRAINT pk_quotas PRIMARY KEY (quota_id),
    CONSTRAINT fk_quotas_metric_id_metrics FOREIGN KEY (metric_id) REFERENCES metrics (metric_id),
    CONSTRAINT uq_quotas_metric_id_customer_id_period UNIQUE (metric_id, customer_id, period),
    CONSTRAINT ck_quotas_customer_id CHECK (char_length(customer_id) <= 255),
    CONSTRAINT ck_quotas_period CHECK (period IN ('HOUR', 'DAY', 'WEEK', 'MONTH', 'TOTAL')),
    CONSTRAINT ck_quotas_limit_amount CHECK (limit_amount >= 0 AND limit_amount < 'Infinity'),
    CONSTRAINT ck_quotas_enforcement CHECK (enforcement IN ('HARD', 'SOFT'))
)
"""

RESERVATIONS = """
CREATE TABLE quota_reservations (
    reservation_id text NOT NULL,
    organization_id text NOT NULL,
    mode text NOT NULL,
    idempotency_key text,
    metric_id bigint NOT NULL,
    customer_id text NOT NULL,
    amount numeric NOT NULL,
    status text NOT NULL,
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    committed_amount numeric,
    hold_time timestamptz NOT NULL,
    CONSTRAINT pk_quota_reservations PRIMARY KEY (reservation_id),
    CONSTRAINT fk_quota_reservations_metric_id_metrics
        FOREIGN KEY (metric_id) REFERENCES metrics (metric_id),
    CONSTRAINT uq_quota_reservations_organization_id_mode_idempotency_key
        UNIQUE (organization_id, mode, idempotency_key),
    CONSTRAINT ck_quota_reservations_mode CHECK (mode IN ('live', 'test')),
    CONSTRAINT ck_quota_reservations_customer_id CHECK (char_length(customer_id) BETWEEN 1 AND 255),
    CONSTRAINT ck_quota_reservations_amount CHECK (amount > 0 AND amount < 'Infinity'),
    CONSTRAINT ck_quota_reservations_status
        CHECK (status IN ('ACTIVE', 'COMMITTED', 'RELEASED')),
    CONSTRAINT ck_quota_reservations_expire_time CHECK (expire_time > create_time),
    CONSTRAINT ck_quota_reservations_hold_time
        CHECK (status <> 'ACTIVE' OR hold_time = expire_time),
    CONSTRAINT ck_quota_reservations_committed_amount CHECK (
        (status = 'COMMITTED') = (committed_amount IS NOT NULL)
        AND committed_amount >= 0 AND committed_amount < 'Infinity'
    )
)
"""

INDEXES = (
    "CREATE INDEX ix_quota_reservations_held ON quota_reservations "
    "(metric_id, customer_id, hold_time) WHERE status <> 'RELEASED'",
    "CREATE INDEX ix_quota_reservations_hold_time ON quota_reservations (hold_time)",
)

KEEP_QUOTAS = """
CREATE FUNCTION keep_quotas() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.quota_id, NEW.metric_id, NEW.customer_id, NEW.period, NEW.create_time)
        IS DISTINCT FROM
        (OLD.quota_id, OLD.metric_id, OLD.customer_id, OLD.period, OLD.create_time)
    THEN
        RAISE EXCEPTION 'what identifies a quota never changes';
    END IF;
    RETURN NEW;
END
$$
"""

KEEP_RESERVATIONS = """
CREATE FUNCTION keep_reservations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.reservation_id, NEW.organization_id, NEW.mode, NEW.idempotency_key, NEW.metric_id,
            NEW.customer_id, NEW.amount, NEW.create_time, NEW.expire_time)
        IS DISTINCT FROM
        (OLD.reservation_id, OLD.organization_id, OLD.mode, OLD.idempotency_key, OLD.metric_id,
            OLD.customer_id, OLD.amount, OLD.create_time, OLD.expire_time)
    THEN
        RAISE EXCEPTION 'what a reservation promises never changes';
    END IF;
    IF OLD.status <> 'ACTIVE' THEN
        RAISE EXCEPTION 'a reservation ends once';
    END IF;
    RETURN NEW;
END
$$
"""

TRIGGERS = (
    "CREATE TRIGGER keep_quotas BEFORE UPDATE ON quotas "
    "FOR EACH ROW EXECUTE FUNCTION keep_quotas()",
    "CREATE TRIGGER keep_reservations BEFORE UPDATE ON quota_reservations "
    "FOR EACH ROW EXECUTE FUNCTION keep_reservations()",
)


def upgrade() -> None:
    """Make the tables, the indexes and the triggers."""
    for statement in (QUOTAS, RESERVATIONS, *INDEXES, KEEP_QUOTAS, KEEP_RESERVATIONS, *TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade."""
    op.drop_table("quota_reservations")
    op.drop_table("quotas")
    op.execute("DROP FUNCTION keep_reservations()")
    op.execute("DROP FUNCTION keep_quotas()")
