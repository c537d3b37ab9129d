"""The only source of wall-clock time, so that tests and rehearsals can move it."""

import os
from datetime import UTC as UTC
from datetime import datetime, timedelta

_offset = timedelta(seconds=int(os.environ.get("USAGEFLOW_CLOCK_OFFSET_S", "0") or 0))


def offset() -> timedelta:
    """How far this process's clock is ahead of the machine's (USAGEFLOW_CLOCK_OFFSET_S)."""
    return _offset


def now() -> datetime:
    """The time, aware, in UTC, with microseconds."""
    return datetime.now(UTC) + _offset
