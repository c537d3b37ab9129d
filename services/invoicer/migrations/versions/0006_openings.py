"""What is due when a subscription starts: setup fees, and base prices in advance.

It has an invoice of its own, of the kind OPENING, beside that of the first period. A subscription
whose opening is not invoiced yet is still in its first period.
"""

from alembic import op

revision = "0006"
down_revision = "0005"

STATEMENTS = (
    """
    ALTER TABLE plan_versions
    ADD COLUMN base_price_timing text NOT NULL DEFAULT 'IN_ARREARS',
    ADD COLUMN setup_fee numeric NOT NULL DEFAULT 0,
    ADD CONSTRAINT ck_plan_versions_base_price_timing
        CHECK (base_price_timing IN ('IN_ARREARS', 'IN_ADVANCE')),
    ADD CONSTRAINT ck_plan_versions_setup_fee CHECK (setup_fee >= 0)
    """,
    """
    ALTER TABLE subscriptions
    ADD COLUMN opening boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT ck_subscriptions_opening
        CHECK (NOT opening OR period_start IS NOT DISTINCT FROM start_time)
    """,
    "CREATE INDEX ix_subscriptions_opening ON subscriptions (start_time) WHERE opening",
    """
    ALTER TABLE invoices
    ADD COLUMN kind text NOT NULL DEFAULT 'PERIOD',
    ADD CONSTRAINT ck_invoices_kind CHECK (kind IN ('PERIOD', 'OPENING')),
    DROP CONSTRAINT uq_invoices_period,
    ADD CONSTRAINT uq_invoices_period
        UNIQUE (subscription_id, organization_id, mode, period_start, kind)
    """,
    """
    ALTER TABLE invoice_lines
    DROP CONSTRAINT ck_invoice_lines_kind,
    DROP CONSTRAINT ck_invoice_lines_metric,
    ADD CONSTRAINT ck_invoice_lines_kind
        CHECK (kind IN ('SETUP_FEE', 'BASE', 'USAGE', 'LATE_USAGE', 'CREDIT_CARRIED')),
    ADD CONSTRAINT ck_invoice_lines_metric
        CHECK ((kind IN ('USAGE', 'LATE_USAGE')) = (metric IS NOT NULL))
    """,
)

UNDO = (
    """
    ALTER TABLE invoice_lines
    DROP CONSTRAINT ck_invoice_lines_kind,
    DROP CONSTRAINT ck_invoice_lines_metric,
    ADD CONSTRAINT ck_invoice_lines_kind
        CHECK (kind IN ('BASE', 'USAGE', 'LATE_USAGE', 'CREDIT_CARRIED')),
    ADD CONSTRAINT ck_invoice_lines_metric
        CHECK ((kind IN ('BASE', 'CREDIT_CARRIED')) = (metric IS NULL))
    """,
    """
    ALTER TABLE invoices
    DROP CONSTRAINT uq_invoices_period,
    ADD CONSTRAINT uq_invoices_period
        UNIQUE (subscription_id, organization_id, mode, period_start),
    DROP COLUMN kind
    """,
    "ALTER TABLE subscriptions DROP COLUMN opening",
    "ALTER TABLE plan_versions DROP COLUMN base_price_timing, DROP COLUMN setup_fee",
)


def upgrade() -> None:
    """Add what openings need."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade; the database refuses it while there are openings."""
    for statement in UNDO:
        op.execute(statement)
