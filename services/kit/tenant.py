"""Whose data it is. Here for those who have no database: the gateway does without SQLAlchemy."""

from typing import NamedTuple


class TenantKey(NamedTuple):
    """Organization and mode ("live" or "test"), as SQL has them."""

    organization_id: str
    mode: str
