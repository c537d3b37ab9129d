"""Whom and what is billed: currencies, customers, plans and their versions."""

from sqlalchemy import (
    JSON,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from services.invoicer.tables.columns import metadata, tenant_columns, time_column

# By what the index of customers finds a tenant's.
CUSTOMERS_TENANT = "((organization_id || '/'::text) || mode)"

currencies = Table(
    "currencies",
    metadata,
    Column("code", Text, primary_key=True),
    Column("minor_digits", SmallInteger, nullable=False),
)

customers = Table(
    "customers",
    metadata,
    *tenant_columns(),
    Column("id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("currency", Text),
    Column("metadata_json", Text, nullable=False),
    time_column("create_time"),
    PrimaryKeyConstraint("organization_id", "mode", "id"),
    ForeignKeyConstraint(["currency"], ["currencies.code"], name="fk_customers_currencies"),
    Index("ix_customers_create_time", text(CUSTOMERS_TENANT), "create_time", "id"),
)

plans = Table(
    "plans",
    metadata,
    *tenant_columns(),
    Column("id", Text, nullable=False),
    Column("newest_version", Integer, nullable=False),
    PrimaryKeyConstraint("organization_id", "mode", "id"),
)

plan_versions = Table(
    "plan_versions",
    metadata,
    *tenant_columns(),
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
    time_column("create_time"),
    PrimaryKeyConstraint("organization_id", "mode", "plan_id", "version"),
    ForeignKeyConstraint(
        ["organization_id", "mode", "plan_id"],
        ["plans.organization_id", "plans.mode", "plans.id"],
        name="fk_plan_versions_plans",
    ),
    ForeignKeyConstraint(["currency"], ["currencies.code"], name="fk_plan_versions_currencies"),
)


def plan_version_key(*columns: str, name: str) -> ForeignKeyConstraint:
    """Refers to a version of a plan."""
    key = ("organization_id", "mode", "plan_id", "version")
    return ForeignKeyConstraint(columns, [f"plan_versions.{column}" for column in key], name=name)


plan_prices = Table(
    "plan_prices",
    metadata,
    *tenant_columns(),
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
    # How much may be used in a period, HARD or SOFT; NULL: no limit.
    Column("usage_limit", Numeric),
    Column("usage_limit_enforcement", Text),
    PrimaryKeyConstraint("organization_id", "mode", "plan_id", "version", "position"),
    UniqueConstraint(
        "organization_id", "mode", "plan_id", "version", "metric", name="uq_plan_prices_metric"
    ),
    plan_version_key(
        "organization_id", "mode", "plan_id", "version", name="fk_plan_prices_plan_versions"
    ),
)
