"""How fast organizations and keys may go, and where keys may be used from.

The columns keep their defaults in the database: an accounts of the version before, still running
beside this one, makes organizations and keys without naming them.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, CIDR

revision = "0012"
down_revision = "0011"

COLUMNS = {
    "organizations": (
        ("requests_per_second", sa.Integer, "50000"),
        ("events_per_second", sa.Integer, "1000000"),
    ),
    "api_keys": (
        ("allowed_networks", ARRAY(CIDR), "{}"),
        ("requests_per_second", sa.Integer, "0"),
        ("events_per_second", sa.Integer, "0"),
    ),
}
CHECKS = {
    "organizations": {
        "requests_per_second": "requests_per_second BETWEEN 1 AND 1000000",
        "events_per_second": "events_per_second BETWEEN 1 AND 10000000",
    },
    "api_keys": {
        "allowed_networks": "cardinality(allowed_networks) <= 50",
        "requests_per_second": "requests_per_second BETWEEN 0 AND 1000000",
        "events_per_second": "events_per_second BETWEEN 0 AND 10000000",
    },
}


def upgrade() -> None:
    """Add the columns; what is there already gets the defaults."""
    for table, columns in COLUMNS.items():
        for name, kind, default in columns:
            op.add_column(table, sa.Column(name, kind, nullable=False, server_default=default))
        for name, condition in CHECKS[table].items():
            op.create_check_constraint(f"ck_{table}_{name}", table, condition)


def downgrade() -> None:
    """Undo upgrade."""
    for table, columns in COLUMNS.items():
        for name in CHECKS[table]:
            op.drop_constraint(f"ck_{table}_{name}", table)
        for name, _kind, _default in reversed(columns):
            op.drop_column(table, name)
