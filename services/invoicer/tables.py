"""The tables of invoicer; the migrations make them, a test compares the two.

Constraints on values, the triggers that keep rows as they are, and why indexes are as they are,
stand in the migrations.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
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
    Column("billing_period", Text, nullable=False),
    Column("metrics_count", Integer, nullable=False),
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
    # Until then no other scheduler takes it (the database's clock).
    Column(
        "attempt_time", DateTime(timezone=True), nullable=False, server_default=text("'-infinity'")
    ),
    # Counts changes: what was computed from one revision is not written over another.
    Column("revision", BigInteger, nullable=False, server_default=text("1")),
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
    Column("subscription_id", Text, nullable=False),
    Column("plan_id", Text, nullable=False),
    Column("plan_version", Integer, nullable=False),
    _time("period_start"),
    _time("period_end"),
    Column("currency", Text, nullable=False),
    Column("amount", Numeric, nullable=False),
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
        "subscription_id", "organization_id", "mode", "period_start", name="uq_invoices_period"
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
    PrimaryKeyConstraint("organization_id", "mode", "invoice_id", "position"),
    ForeignKeyConstraint(
        ["organization_id", "mode", "invoice_id"],
        ["invoices.organization_id", "invoices.mode", "invoices.id"],
        name="fk_invoice_lines_invoices",
    ),
)

outbox = outbox_table(metadata)
inbox = inbox_table(metadata)
