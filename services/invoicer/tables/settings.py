"""What organizations decide about their invoices."""

from sqlalchemy import (
    Column,
    Index,
    Integer,
    Interval,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from services.invoicer.tables.columns import metadata, tenant_columns, time_column

# No row, or NULL: as the installation has it.
billing_settings = Table(
    "billing_settings",
    metadata,
    *tenant_columns(),
    Column("grace", Interval),
    # Days after the first failure.
    Column("retry_days", ARRAY(Integer)),
    Column("provider", Text, nullable=False, server_default=text("'MANUAL'")),
    # Under PAYMENT_SECRETS_KEY, and what may be shown of it.
    Column("sealed_provider_key", LargeBinary),
    Column("provider_key_hint", Text, nullable=False, server_default=text("''")),
    Column("late_usage", Text, nullable=False, server_default=text("'NEXT_INVOICE'")),
    time_column("update_time"),
    PrimaryKeyConstraint("organization_id", "mode"),
    # Finds the shortest.
    Index("ix_billing_settings_grace", "grace"),
)
