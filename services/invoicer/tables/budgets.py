"""What periods are expected to cost, and what of that was reached."""

from sqlalchemy import (
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from services.invoicer.tables.columns import metadata, tenant_columns, time_column


def _subscription_key(name: str) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["organization_id", "mode", "subscription_id"],
        ["subscriptions.organization_id", "subscriptions.mode", "subscriptions.id"],
        name=name,
    )


budgets = Table(
    "budgets",
    metadata,
    *tenant_columns(),
    Column("subscription_id", Text, nullable=False),
    Column("amount", Numeric, nullable=False),
    Column("currency", Text, nullable=False),
    Column("percents", ARRAY(Integer), nullable=False),
    # When it is looked at next (the database's clock); never when the subscription has ended.
    Column(
        "check_time", DateTime(timezone=True), nullable=False, server_default=text("'-infinity'")
    ),
    time_column("create_time"),
    time_column("update_time"),
    PrimaryKeyConstraint("organization_id", "mode", "subscription_id"),
    _subscription_key("fk_budgets_subscriptions"),
    ForeignKeyConstraint(["currency"], ["currencies.code"], name="fk_budgets_currencies"),
    Index("ix_budgets_check_time", "check_time"),
)

# What was told, each once.
budget_thresholds = Table(
    "budget_thresholds",
    metadata,
    *tenant_columns(),
    Column("subscription_id", Text, nullable=False),
    time_column("period_start"),
    Column("amount", Numeric, nullable=False),
    Column("percent", Integer, nullable=False),
    Column("spent", Numeric, nullable=False),
    time_column("reach_time"),
    PrimaryKeyConstraint(
        "organization_id", "mode", "subscription_id", "period_start", "amount", "percent"
    ),
    _subscription_key("fk_budget_thresholds_subscriptions"),
)
