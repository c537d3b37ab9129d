"""What organizations decide about their invoices."""

from sqlalchemy import Column, Index, Interval, PrimaryKeyConstraint, Table

from services.invoicer.tables.columns import metadata, tenant_columns, time_column

# No row, or NULL: as the installation has it.
billing_settings = Table(
    "billing_settings",
    metadata,
    *tenant_columns(),
    Column("grace", Interval),
    time_column("update_time"),
    PrimaryKeyConstraint("organization_id", "mode"),
    # Finds the shortest.
    Index("ix_billing_settings_grace", "grace"),
)
