"""Endpoints: limits, headers, why and when disabled, pace; their secrets sealed, of two kinds."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the columns. What is in `endpoint_secrets.key` is sealed when notifier starts."""
    _settings()
    _health()
    _secrets()


def downgrade() -> None:
    """Undo upgrade; sealed secrets are lost."""
    for name in ("kind", "material", "public_key"):
        op.drop_constraint(f"ck_endpoint_secrets_{name}", "endpoint_secrets")
    op.execute("DELETE FROM endpoint_secrets WHERE key IS NULL")
    op.alter_column("endpoint_secrets", "key", nullable=False)
    for name in ("kind", "sealed", "public_key"):
        op.drop_column("endpoint_secrets", name)
    for name in ("rate_limit", "disabled_reason", "enabled", "throttle"):
        op.drop_constraint(f"ck_endpoints_{name}", "endpoints")
    for name in (
        "rate_limit",
        "header_names",
        "sealed_headers",
        "disabled_reason",
        "disable_time",
        "failing_since",
        "last_failure_time",
        "throttle_step",
        "throttle_until",
        "paced_until",
    ):
        op.drop_column("endpoints", name)


def _settings() -> None:
    op.add_column(
        "endpoints", sa.Column("rate_limit", sa.Integer, nullable=False, server_default="0")
    )
    op.add_column(
        "endpoints",
        sa.Column("header_names", sa.ARRAY(sa.Text), nullable=False, server_default="{}"),
    )
    op.add_column("endpoints", sa.Column("sealed_headers", sa.LargeBinary))
    op.add_column(
        "endpoints", sa.Column("disabled_reason", sa.Text, nullable=False, server_default="")
    )
    op.add_column("endpoints", sa.Column("disable_time", TIME))
    op.create_check_constraint(
        "ck_endpoints_rate_limit", "endpoints", "rate_limit BETWEEN 0 AND 1000"
    )
    op.create_check_constraint(
        "ck_endpoints_disabled_reason",
        "endpoints",
        "disabled_reason IN ('', 'requested', 'failing', 'gone')",
    )
    op.create_check_constraint(
        "ck_endpoints_enabled",
        "endpoints",
        "(disabled_reason = '') = (disable_time IS NULL)"
        " AND enabled = (disabled_reason = '' AND delete_time IS NULL)",
    )


def _health() -> None:
    op.add_column("endpoints", sa.Column("failing_since", TIME))
    op.add_column("endpoints", sa.Column("last_failure_time", TIME))
    op.add_column(
        "endpoints", sa.Column("throttle_step", sa.SmallInteger, nullable=False, server_default="0")
    )
    op.add_column("endpoints", sa.Column("throttle_until", TIME))
    op.add_column("endpoints", sa.Column("paced_until", TIME))
    op.create_check_constraint(
        "ck_endpoints_throttle",
        "endpoints",
        "throttle_step >= 0 AND (throttle_step = 0) = (throttle_until IS NULL)",
    )
    # Health is written often, and no index has it: room on the page keeps indexes out of it (HOT).
    op.execute("ALTER TABLE endpoints SET (fillfactor = 70)")


def _secrets() -> None:
    op.add_column(
        "endpoint_secrets", sa.Column("kind", sa.Text, nullable=False, server_default="v1")
    )
    op.add_column("endpoint_secrets", sa.Column("sealed", sa.LargeBinary))
    op.add_column("endpoint_secrets", sa.Column("public_key", sa.LargeBinary))
    op.alter_column("endpoint_secrets", "key", nullable=True)
    op.create_check_constraint(
        "ck_endpoint_secrets_kind", "endpoint_secrets", "kind IN ('v1', 'v1a')"
    )
    op.create_check_constraint(
        "ck_endpoint_secrets_material", "endpoint_secrets", "num_nonnulls(key, sealed) = 1"
    )
    op.create_check_constraint(
        "ck_endpoint_secrets_public_key",
        "endpoint_secrets",
        "(kind = 'v1a') = (public_key IS NOT NULL)",
    )
