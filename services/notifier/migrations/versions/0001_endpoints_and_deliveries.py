"""Webhook endpoints, their secrets, events, deliveries and attempts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TIME = sa.DateTime(timezone=True)

REFUSE_CHANGE = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a row of % never changes', TG_TABLE_NAME;
END
$$
"""


def upgrade() -> None:
    """Make the tables and the triggers."""
    _endpoints()
    _events()
    _deliveries()
    _attempts()
    op.execute(REFUSE_CHANGE)
    for table in ("webhook_events", "delivery_attempts"):
        op.execute(
            f"CREATE TRIGGER refuse_change BEFORE UPDATE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )


def downgrade() -> None:
    """Undo upgrade."""
    for table in (
        "delivery_attempts",
        "deliveries",
        "webhook_events",
        "inbox",
        "endpoint_secrets",
        "endpoints",
    ):
        op.drop_table(table)
    op.execute("DROP FUNCTION refuse_change()")


def _endpoints() -> None:
    op.create_table(
        "endpoints",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("event_types", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("delete_time", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_endpoints"),
        sa.UniqueConstraint(
            "organization_id", "mode", "id", name="uq_endpoints_organization_id_mode_id"
        ),
        sa.CheckConstraint("id ~ '^whe_[0-9a-f]{32}$'", name="ck_endpoints_id"),
        sa.CheckConstraint("mode IN ('live', 'test')", name="ck_endpoints_mode"),
        sa.CheckConstraint(
            "char_length(url) <= 2048 AND url ~ '^https?://'", name="ck_endpoints_url"
        ),
        sa.CheckConstraint("char_length(description) <= 500", name="ck_endpoints_description"),
    )
    op.create_table(
        "endpoint_secrets",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("endpoint_id", sa.Text, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("expire_time", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_endpoint_secrets"),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["endpoints.id"], name="fk_endpoint_secrets_endpoint_id_endpoints"
        ),
        sa.CheckConstraint("octet_length(key) BETWEEN 24 AND 64", name="ck_endpoint_secrets_key"),
    )
    op.create_index("ix_endpoint_secrets_endpoint_id_id", "endpoint_secrets", ["endpoint_id", "id"])
    op.create_index(
        "ix_endpoint_secrets_current",
        "endpoint_secrets",
        ["endpoint_id"],
        unique=True,
        postgresql_where=sa.text("expire_time IS NULL"),
    )


def _events() -> None:
    op.create_table(
        "inbox",
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("receive_time", TIME, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("message_id", name="pk_inbox"),
    )
    op.create_table(
        "webhook_events",
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "mode", "id", name="pk_webhook_events"),
        sa.CheckConstraint("mode IN ('live', 'test')", name="ck_webhook_events_mode"),
    )


def _deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("endpoint_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempt_count", sa.Integer, nullable=False),
        sa.Column("schedule_step", sa.SmallInteger, nullable=False),
        sa.Column("next_attempt_time", TIME),
        sa.Column("lease_until", TIME),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("replay_time", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.ForeignKeyConstraint(
            ["organization_id", "mode", "event_id"],
            ["webhook_events.organization_id", "webhook_events.mode", "webhook_events.id"],
            name="fk_deliveries_event",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id", "mode", "endpoint_id"],
            ["endpoints.organization_id", "endpoints.mode", "endpoints.id"],
            name="fk_deliveries_endpoint",
        ),
        sa.UniqueConstraint("event_id", "endpoint_id", name="uq_deliveries_event_id_endpoint_id"),
        sa.CheckConstraint("id ~ '^whd_[0-9a-f]{32}$'", name="ck_deliveries_id"),
        sa.CheckConstraint(
            "status IN ('pending', 'succeeded', 'failed', 'dropped')", name="ck_deliveries_status"
        ),
        sa.CheckConstraint(
            "(status = 'pending') = (next_attempt_time IS NOT NULL)",
            name="ck_deliveries_next_attempt_time",
        ),
        sa.CheckConstraint(
            "status = 'pending' OR lease_until IS NULL", name="ck_deliveries_lease_until"
        ),
        sa.CheckConstraint(
            "attempt_count >= 0 AND schedule_step >= 0", name="ck_deliveries_counts"
        ),
    )
    op.create_index("ix_deliveries_endpoint_id_id", "deliveries", ["endpoint_id", "id"])
    op.create_index(
        "ix_deliveries_pending",
        "deliveries",
        ["endpoint_id", "next_attempt_time"],
        postgresql_where=sa.text("status = 'pending'"),
    )
    # A lease is written to a row that will be written again: room for it on the same page keeps
    # the indexes out of it (HOT).
    op.execute("ALTER TABLE deliveries SET (fillfactor = 80)")


def _attempts() -> None:
    op.create_table(
        "delivery_attempts",
        sa.Column("delivery_id", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("start_time", TIME, nullable=False),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("response_status", sa.SmallInteger, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("response_body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("delivery_id", "number", name="pk_delivery_attempts"),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["deliveries.id"],
            name="fk_delivery_attempts_delivery_id_deliveries",
        ),
        sa.CheckConstraint("number >= 1 AND duration_ms >= 0", name="ck_delivery_attempts_numbers"),
        sa.CheckConstraint(
            "octet_length(response_body) <= 16384", name="ck_delivery_attempts_response_body"
        ),
        sa.CheckConstraint(
            "error IN ('', 'timeout', 'connection', 'dns', 'tls', 'refused_address', "
            "'http_status')",
            name="ck_delivery_attempts_error",
        ),
    )
