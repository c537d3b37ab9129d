"""Who has what: subscriptions, their discounts, one-off charges."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Computed,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from services.invoicer.tables.catalog import plan_version_key
from services.invoicer.tables.columns import metadata, tenant_columns, time_column

subscriptions = Table(
    "subscriptions",
    metadata,
    *tenant_columns(),
    Column("id", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("plan_id", Text, nullable=False),
    Column("plan_version", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("billing_anchor", Text, nullable=False),
    Column("billing_period", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    time_column("start_time"),
    # The first period that is not invoiced; NULL when none is left.
    time_column("period_start", nullable=True),
    time_column("period_end", nullable=True),
    # From which second on time is not invoiced.
    time_column("exact_period_start", nullable=True),
    time_column("cancel_time", nullable=True),
    # What is due at the start of the period is not invoiced yet.
    Column("opening", Boolean, nullable=False, server_default=text("false")),
    # The period is a trial's or a pause's: it has no invoice.
    Column("idle", Boolean, nullable=False, server_default=text("false")),
    # When it has ended: until when late usage is waited for; NULL once that is invoiced.
    time_column("late_check_time", nullable=True),
    # Until then no other scheduler takes it (the database's clock).
    Column(
        "attempt_time", DateTime(timezone=True), nullable=False, server_default=text("'-infinity'")
    ),
    # Counts changes: what was computed from one revision is not written over another.
    Column("revision", BigInteger, nullable=False, server_default=text("1")),
    # Under which it was made, and the digest of what was then asked for; NULL: without a key.
    Column("idempotency_key", Text),
    Column("idempotency_digest", LargeBinary),
    time_column("create_time"),
    # The test clock that it is on, or was when that ended; a trigger sets it (test mode alone).
    Column("clock_id", Text),
    PrimaryKeyConstraint("organization_id", "mode", "id"),
    ForeignKeyConstraint(
        ["organization_id", "mode", "customer_id"],
        ["customers.organization_id", "customers.mode", "customers.id"],
        name="fk_subscriptions_customers",
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "clock_id"],
        ["test_clocks.organization_id", "test_clocks.mode", "test_clocks.id"],
        name="fk_subscriptions_test_clocks",
    ),
    plan_version_key(
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
    Index(
        "ix_subscriptions_clock_id",
        "clock_id",
        "organization_id",
        "mode",
        postgresql_where=text("clock_id IS NOT NULL"),
    ),
    Index("ix_subscriptions_opening", "period_start", postgresql_where=text("opening")),
    Index("ix_subscriptions_idle", "period_end", postgresql_where=text("idle")),
    Index(
        "ix_subscriptions_late_check_time",
        "late_check_time",
        postgresql_where=text("late_check_time IS NOT NULL"),
    ),
)


def subscription_key(name: str) -> ForeignKeyConstraint:
    """Refers to a subscription, from subscription_id."""
    key = ("organization_id", "mode", "id")
    return ForeignKeyConstraint(
        ["organization_id", "mode", "subscription_id"],
        [f"subscriptions.{column}" for column in key],
        name=name,
    )


subscription_phases = Table(
    "subscription_phases",
    metadata,
    *tenant_columns(),
    Column("subscription_id", Text, nullable=False),
    time_column("start_time"),
    # NULL: it goes on.
    time_column("end_time", nullable=True),
    # TRIAL and PAUSED: nothing is billed.
    Column("kind", Text, nullable=False),
    Column("plan_id", Text, nullable=False),
    Column("plan_version", Integer, nullable=False),
    # That of the plan; with it and anchor_time periods are cut.
    Column("billing_period", Text, nullable=False),
    time_column("anchor_time"),
    # How many times the base price is charged.
    Column("quantity", Integer, nullable=False),
    time_column("create_time"),
    # From when and until when it is billed by time; NULL: as usage is.
    time_column("exact_start_time", nullable=True),
    time_column("exact_end_time", nullable=True),
    # From when on the first period from the anchor is priced; NULL: from the anchor on.
    time_column("exact_anchor_time", nullable=True),
    # From when on it is billed by time.
    Column(
        "priced_from",
        DateTime(timezone=True),
        Computed("coalesce(exact_start_time, start_time)", persisted=True),
        nullable=False,
    ),
    PrimaryKeyConstraint("organization_id", "mode", "subscription_id", "start_time", "priced_from"),
    subscription_key("fk_subscription_phases_subscriptions"),
    plan_version_key(
        "organization_id",
        "mode",
        "plan_id",
        "plan_version",
        name="fk_subscription_phases_plan_versions",
    ),
)

# Subscriptions whose limits of usage aggregator has to be told: written by a trigger on phases, for
# plans that limit usage. `due_time`: not before; `revision` counts the changes.
limit_tells = Table(
    "limit_tells",
    metadata,
    *tenant_columns(),
    Column("subscription_id", Text, nullable=False),
    # By the customer's time, which a test clock may show; not before pause_until by the real one.
    time_column("due_time"),
    Column(
        "pause_until", DateTime(timezone=True), nullable=False, server_default=text("'-infinity'")
    ),
    Column("revision", BigInteger, nullable=False),
    PrimaryKeyConstraint("organization_id", "mode", "subscription_id"),
    subscription_key("fk_limit_tells_subscriptions"),
    Index("ix_limit_tells_due_time", "mode", "due_time"),
)

discounts = Table(
    "discounts",
    metadata,
    *tenant_columns(),
    Column("id", Text, nullable=False),
    Column("subscription_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    # One of the two.
    Column("percent", Numeric),
    Column("amount", Numeric),
    # For how many periods it was made; NULL: for ever.
    Column("periods", Integer),
    # For periods that begin from then on, and before end_time (NULL: all).
    time_column("start_time"),
    time_column("end_time", nullable=True),
    time_column("create_time"),
    PrimaryKeyConstraint("organization_id", "mode", "id"),
    subscription_key("fk_discounts_subscriptions"),
    Index("ix_discounts_subscription_id", "subscription_id", "organization_id", "mode", "id"),
)

charges = Table(
    "charges",
    metadata,
    *tenant_columns(),
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
    time_column("create_time"),
    PrimaryKeyConstraint("organization_id", "mode", "id"),
    UniqueConstraint(
        "idempotency_key", "organization_id", "mode", name="uq_charges_idempotency_key"
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "customer_id"],
        ["customers.organization_id", "customers.mode", "customers.id"],
        name="fk_charges_customers",
    ),
    subscription_key("fk_charges_subscriptions"),
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
