"""The tables of invoicer; the migrations make them, a test compares the two.

Constraints on values, the triggers that keep rows as they are, and why indexes are as they are,
stand in the migrations.
"""

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from services.kit.database import metadata_naming
from services.kit.inbox import inbox_table
from services.kit.outbox import outbox_table

metadata = MetaData(naming_convention=metadata_naming)

# By what the index of customers finds a tenant's.
CUSTOMERS_TENANT = "((organization_id || '/'::text) || mode)"


def _tenant() -> tuple[Column[str], Column[str]]:
    return (
        Column("organization_id", Text, nullable=False),
        Column("mode", Text, nullable=False),
    )


def _time(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


currencies = Table(
    "currencies",
    metadata,
    Column("code", Text, primary_key=True),
    Column("minor_digits", SmallInteger, nullable=False),
)

customers = Table(
    "customers",
    metadata,
    *_tenant(),
    Column("id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("currency", Text),
    Column("metadata_json", Text, nullable=False),
    _time("create_time"),
    PrimaryKeyConstraint("organization_id", "mode", "id"),
    ForeignKeyConstraint(["currency"], ["currencies.code"], name="fk_customers_currencies"),
    Index("ix_customers_create_time", text(CUSTOMERS_TENANT), "create_time", "id"),
)

plans = Table(
    "plans",
    metadata,
    *_tenant(),
    Column("id", Text, nullable=False),
    Column("newest_version", Integer, nullable=False),
    PrimaryKeyConstraint("organization_id", "mode", "id"),
)

plan_versions = Table(
    "plan_versions",
    metadata,
    *_tenant(),
    Column("plan_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("base_price", Numeric, nullable=False),
    Column("base_price_timing", Text, nullable=False, server_default=text("'IN_ARREARS'")),
    Column("setup_fee", Numeric, nullable=False, server_default=text("0")),
    Column("billing_period", Text, nullable=False),
    Column("metrics_count", Integer, nullable=False),
    # What a period costs at least and at most; NULL: no limit.
    Column("minimum", Numeric),
    Column("maximum", Numeric),
    # A list of {"name", "percent" or "amount", "periods"}; decimals are strings.
    Column("discounts", JSON, nullable=False, server_default=text("'[]'")),
    _time("create_time"),
    PrimaryKeyConstraint("organization_id", "mode", "plan_id", "version"),
    ForeignKeyConstraint(
        ["organization_id", "mode", "plan_id"],
        ["plans.organization_id", "plans.mode", "plans.id"],
        name="fk_plan_versions_plans",
    ),
    ForeignKeyConstraint(["currency"], ["currencies.code"], name="fk_plan_versions_currencies"),
)


def _plan_version_key(*columns: str, name: str) -> ForeignKeyConstraint:
    key = ("organization_id", "mode", "plan_id", "version")
    return ForeignKeyConstraint(columns, [f"plan_versions.{column}" for column in key], name=name)


plan_prices = Table(
    "plan_prices",
    metadata,
    *_tenant(),
    Column("plan_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    # From 1; the order of the lines.
    Column("position", Integer, nullable=False),
    Column("metric", Text, nullable=False),
    Column("included_units", Numeric, nullable=False),
    Column("model", Text, nullable=False),
    # What the model's parse() takes; decimals are strings.
    Column("parameters", JSON, nullable=False),
    # What a line costs at least and at most; NULL: no limit.
    Column("minimum", Numeric),
    Column("maximum", Numeric),
    PrimaryKeyConstraint("organization_id", "mode", "plan_id", "version", "position"),
    UniqueConstraint(
        "organization_id", "mode", "plan_id", "version", "metric", name="uq_plan_prices_metric"
    ),
    _plan_version_key(
        "organization_id", "mode", "plan_id", "version", name="fk_plan_prices_plan_versions"
    ),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    *_tenant(),
    Column("id", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("plan_id", Text, nullable=False),
    Column("plan_version", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("billing_anchor", Text, nullable=False),
    Column("billing_period", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    _time("start_time"),
    # The first period that is not invoiced; NULL when none is left.
    _time("period_start", nullable=True),
    _time("period_end", nullable=True),
    _time("cancel_time", nullable=True),
    # What is due at the start is not invoiced yet.
    Column("opening", Boolean, nullable=False, server_default=text("false")),
    # Until then no other scheduler takes it (the database's clock).
    Column(
        "attempt_time", DateTime(timezone=True), nullable=False, server_default=text("'-infinity'")
    ),
    # Counts changes: what was computed from one revision is not written over another.
    Column("revision", BigInteger, nullable=False, server_default=text("1")),
    # Under which it was made, and the digest of what was then asked for; NULL: without a key.
    Column("idempotency_key", Text),
    Column("idempotency_digest", LargeBinary),
    _time("create_time"),
    PrimaryKeyConstraint("organization_id", "mode", "id"),
    ForeignKeyConstraint(
        ["organization_id", "mode", "customer_id"],
        ["customers.organization_id", "customers.mode", "customers.id"],
        name="fk_subscriptions_customers",
    ),
    _plan_version_key(
        "organization_id",
        "mode",
        "plan_id",
        "plan_version",
        name="fk_subscriptions_plan_versions",
    ),
    Index("ix_subscriptions_customer_id", "customer_id", "organization_id", "mode", "id"),
    Index(
        "ix_subscriptions_period_end",
        "period_end",
        postgresql_where=text("period_end IS NOT NULL"),
    ),
    Index(
        "uq_subscriptions_idempotency_key",
        "idempotency_key",
        "organization_id",
        "mode",
        unique=True,
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
    Index("ix_subscriptions_opening", "start_time", postgresql_where=text("opening")),
)


def _subscription_key(name: str) -> ForeignKeyConstraint:
    key = ("organization_id", "mode", "id")
    return ForeignKeyConstraint(
        ["organization_id", "mode", "subscription_id"],
        [f"subscriptions.{column}" for column in key],
        name=name,
    )


discounts = Table(
    "discounts",
    metadata,
    *_tenant(),
    Column("id", Text, nullable=False),
    Column("subscription_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    # One of the two.
    Column("percent", Numeric),
    Column("amount", Numeric),
    # For how many periods it was made; NULL: for ever.
    Column("periods", Integer),
    # For periods that begin from then on, and before end_time (NULL: all).
    _time("start_time"),
    _time("end_time", nullable=True),
    _time("create_time"),
    PrimaryKeyConstraint("organization_id", "mode", "id"),
    _subscription_key("fk_discounts_subscriptions"),
    Index("ix_discounts_subscription_id", "subscription_id", "organization_id", "mode", "id"),
)

charges = Table(
    "charges",
    metadata,
    *_tenant(),
    Column("id", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    # On whose next invoice it is; NULL: it was invoiced at once.
    Column("subscription_id", Text),
    Column("description", Text, nullable=False),
    Column("quantity", Numeric, nullable=False),
    Column("unit_price", Numeric, nullable=False),
    Column("currency", Text, nullable=False),
    # Under which key the caller sent it, and a digest of what was sent.
    Column("idempotency_key", Text),
    Column("content_digest", LargeBinary, nullable=False),
    _time("create_time"),
    PrimaryKeyConstraint("organization_id", "mode", "id"),
    UniqueConstraint(
        "idempotency_key", "organization_id", "mode", name="uq_charges_idempotency_key"
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "customer_id"],
        ["customers.organization_id", "customers.mode", "customers.id"],
        name="fk_charges_customers",
    ),
    _subscription_key("fk_charges_subscriptions"),
    ForeignKeyConstraint(["currency"], ["currencies.code"], name="fk_charges_currencies"),
    Index("ix_charges_customer_id", "customer_id", "organization_id", "mode", "id"),
    Index(
        "ix_charges_subscription_id",
        "subscription_id",
        "organization_id",
        "mode",
        "id",
        postgresql_where=text("subscription_id IS NOT NULL"),
    ),
)

invoice_counters = Table(
    "invoice_counters",
    metadata,
    *_tenant(),
    Column("series", Text, nullable=False),
    Column("newest_sequence", BigInteger, nullable=False),
    PrimaryKeyConstraint("organization_id", "mode", "series"),
)

invoices = Table(
    "invoices",
    metadata,
    *_tenant(),
    Column("id", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    # NULL, as the plan, on the invoice of a one-off charge.
    Column("subscription_id", Text),
    Column("plan_id", Text),
    Column("plan_version", Integer),
    _time("period_start"),
    _time("period_end"),
    Column("currency", Text, nullable=False),
    Column("amount", Numeric, nullable=False),
    Column("kind", Text, nullable=False, server_default=text("'PERIOD'")),
    Column("status", Text, nullable=False, server_default=text("'DRAFT'")),
    Column("series", Text, nullable=False, server_default=text("'INV'")),
    Column("sequence", BigInteger),
    Column("number", Text),
    Column("failed_payments", Integer, nullable=False, server_default=text("0")),
    _time("create_time"),
    _time("finalize_time", nullable=True),
    _time("paid_time", nullable=True),
    _time("void_time", nullable=True),
    PrimaryKeyConstraint("organization_id", "mode", "id"),
    UniqueConstraint(
        "subscription_id",
        "organization_id",
        "mode",
        "period_start",
        "kind",
        name="uq_invoices_period",
    ),
    UniqueConstraint("series", "organization_id", "mode", "sequence", name="uq_invoices_sequence"),
    ForeignKeyConstraint(
        ["organization_id", "mode", "subscription_id"],
        ["subscriptions.organization_id", "subscriptions.mode", "subscriptions.id"],
        name="fk_invoices_subscriptions",
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "customer_id"],
        ["customers.organization_id", "customers.mode", "customers.id"],
        name="fk_invoices_customers",
    ),
    _plan_version_key(
        "organization_id", "mode", "plan_id", "plan_version", name="fk_invoices_plan_versions"
    ),
    ForeignKeyConstraint(["currency"], ["currencies.code"], name="fk_invoices_currencies"),
    Index("ix_invoices_customer_id", "customer_id", "organization_id", "mode", "id"),
)

invoice_lines = Table(
    "invoice_lines",
    metadata,
    *_tenant(),
    Column("invoice_id", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("metric", Text),
    Column("description", Text, nullable=False),
    Column("quantity", Numeric, nullable=False),
    Column("included_units", Numeric, nullable=False),
    Column("unit_price", Numeric),
    Column("amount", Numeric, nullable=False),
    # What the line bills; an earlier period than the invoice's for late usage.
    _time("period_start"),
    _time("period_end"),
    # How the amount came about, as a list of strings.
    Column("steps", JSON, nullable=False),
    # The one-off charge that the line bills.
    Column("charge_id", Text),
    PrimaryKeyConstraint("organization_id", "mode", "invoice_id", "position"),
    ForeignKeyConstraint(
        ["organization_id", "mode", "invoice_id"],
        ["invoices.organization_id", "invoices.mode", "invoices.id"],
        name="fk_invoice_lines_invoices",
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "charge_id"],
        ["charges.organization_id", "charges.mode", "charges.id"],
        name="fk_invoice_lines_charges",
    ),
    Index(
        "uq_invoice_lines_charge_id",
        "charge_id",
        "organization_id",
        "mode",
        unique=True,
        postgresql_where=text("charge_id IS NOT NULL"),
    ),
    Index(
        "uq_invoice_lines_credit_carried",
        "invoice_id",
        "organization_id",
        "mode",
        unique=True,
        postgresql_where=text("kind = 'CREDIT_CARRIED'"),
    ),
)

credit_notes = Table(
    "credit_notes",
    metadata,
    *_tenant(),
    Column("id", Text, nullable=False),
    Column("invoice_id", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount", Numeric, nullable=False),
    Column("reason", Text, nullable=False),
    # How it was paid back; NULL: the invoice was not paid.
    Column("refund_reference", Text),
    Column("lines_count", Integer, nullable=False),
    Column("series", Text, nullable=False, server_default=text("'CN'")),
    Column("sequence", BigInteger, nullable=False),
    Column("number", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("content_digest", LargeBinary, nullable=False),
    _time("create_time"),
    PrimaryKeyConstraint("organization_id", "mode", "id"),
    UniqueConstraint(
        "series", "organization_id", "mode", "sequence", name="uq_credit_notes_sequence"
    ),
    UniqueConstraint(
        "idempotency_key", "organization_id", "mode", name="uq_credit_notes_idempotency_key"
    ),
    UniqueConstraint(
        "organization_id", "mode", "id", "invoice_id", name="uq_credit_notes_invoice_id"
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "invoice_id"],
        ["invoices.organization_id", "invoices.mode", "invoices.id"],
        name="fk_credit_notes_invoices",
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "customer_id"],
        ["customers.organization_id", "customers.mode", "customers.id"],
        name="fk_credit_notes_customers",
    ),
    ForeignKeyConstraint(["currency"], ["currencies.code"], name="fk_credit_notes_currencies"),
    Index("ix_credit_notes_invoice_id", "invoice_id", "organization_id", "mode", "id"),
    Index("ix_credit_notes_customer_id", "customer_id", "organization_id", "mode", "id"),
)

credit_note_lines = Table(
    "credit_note_lines",
    metadata,
    *_tenant(),
    Column("credit_note_id", Text, nullable=False),
    Column("invoice_id", Text, nullable=False),
    # Of the invoice's line.
    Column("position", Integer, nullable=False),
    Column("description", Text, nullable=False),
    Column("amount", Numeric, nullable=False),
    PrimaryKeyConstraint("organization_id", "mode", "credit_note_id", "position"),
    ForeignKeyConstraint(
        ["organization_id", "mode", "credit_note_id", "invoice_id"],
        [
            "credit_notes.organization_id",
            "credit_notes.mode",
            "credit_notes.id",
            "credit_notes.invoice_id",
        ],
        name="fk_credit_note_lines_credit_notes",
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "invoice_id", "position"],
        [
            "invoice_lines.organization_id",
            "invoice_lines.mode",
            "invoice_lines.invoice_id",
            "invoice_lines.position",
        ],
        name="fk_credit_note_lines_invoice_lines",
    ),
    Index("ix_credit_note_lines_invoice_id", "invoice_id", "organization_id", "mode", "position"),
)

tax_rates = Table(
    "tax_rates",
    metadata,
    *_tenant(),
    Column("id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("percent", Numeric, nullable=False),
    # Prices contain it; otherwise it is added to them.
    Column("inclusive", Boolean, nullable=False),
    _time("create_time"),
    PrimaryKeyConstraint("organization_id", "mode", "id"),
)

tax_assignments = Table(
    "tax_assignments",
    metadata,
    *_tenant(),
    # NULL: of all customers without rates of their own.
    Column("customer_id", Text),
    # In the order of an invoice's lines; none: no tax.
    Column("tax_rate_ids", ARRAY(Text), nullable=False),
    UniqueConstraint(
        "organization_id",
        "mode",
        "customer_id",
        name="uq_tax_assignments_customer",
        postgresql_nulls_not_distinct=True,
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "customer_id"],
        ["customers.organization_id", "customers.mode", "customers.id"],
        name="fk_tax_assignments_customers",
    ),
)

invoice_taxes = Table(
    "invoice_taxes",
    metadata,
    *_tenant(),
    Column("invoice_id", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("tax_rate_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("percent", Numeric, nullable=False),
    Column("inclusive", Boolean, nullable=False),
    # The sum of the lines without taxes.
    Column("taxable", Numeric, nullable=False),
    Column("amount", Numeric, nullable=False),
    PrimaryKeyConstraint("organization_id", "mode", "invoice_id", "position"),
    UniqueConstraint(
        "organization_id",
        "mode",
        "invoice_id",
        "tax_rate_id",
        name="uq_invoice_taxes_tax_rate_id",
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "invoice_id"],
        ["invoices.organization_id", "invoices.mode", "invoices.id"],
        name="fk_invoice_taxes_invoices",
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "tax_rate_id"],
        ["tax_rates.organization_id", "tax_rates.mode", "tax_rates.id"],
        name="fk_invoice_taxes_tax_rates",
    ),
)

outbox = outbox_table(metadata)
inbox = inbox_table(metadata)
