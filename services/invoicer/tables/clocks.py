"""The time of customers in test mode."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

from services.invoicer.tables.columns import metadata, tenant_columns, time_column

test_clocks = Table(
    "test_clocks",
    metadata,
    *tenant_columns(),
    Column("id", Text, nullable=False),
    # NULL: of all customers.
    Column("customer_id", Text),
    time_column("now_time"),
    # Where it is going; once it is there and all that is due by then is done, it is ready.
    time_column("target_time"),
    Column("ready", Boolean, nullable=False),
    # When it was last told to go on, by the real clock: usage accepted before is billed.
    time_column("accept_time"),
    time_column("create_time"),
    # NULL: it runs.
    time_column("end_time", nullable=True),
    # Counts what accounts has to be told, and was told.
    Column("revision", BigInteger, nullable=False, server_default=text("1")),
    Column("told_revision", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("organization_id", "mode", "id"),
    ForeignKeyConstraint(
        ["organization_id", "mode", "customer_id"],
        ["customers.organization_id", "customers.mode", "customers.id"],
        name="fk_test_clocks_customers",
    ),
    Index(
        "uq_test_clocks_organization",
        "organization_id",
        "mode",
        unique=True,
        postgresql_where=text("end_time IS NULL AND customer_id IS NULL"),
    ),
    Index(
        "uq_test_clocks_customer",
        "organization_id",
        "mode",
        "customer_id",
        unique=True,
        postgresql_where=text("end_time IS NULL AND customer_id IS NOT NULL"),
    ),
    Index(
        "ix_test_clocks_advancing",
        "create_time",
        postgresql_where=text("NOT ready AND end_time IS NULL"),
    ),
    Index(
        "ix_test_clocks_untold",
        "create_time",
        postgresql_where=text("told_revision < revision"),
    ),
)
