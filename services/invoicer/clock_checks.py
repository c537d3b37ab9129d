"""What a test clock may be told; all problems are named at once. Pure."""

from datetime import datetime, timedelta
from typing import Final

from services.invoicer.checks import check_customer_id
from services.invoicer.clocks import Clock
from services.kit.errors import FieldChecks

ADVANCE_DAYS_MAX: Final = 732
# No further ahead of the real time, however often it is advanced.
AHEAD_DAYS_MAX: Final = 3_660
# Of an organization at a time: they travel with its keys.
CLOCKS_MAX: Final = 100


def check_new_clock(customer_id: str, time: datetime, earliest: datetime, real: datetime) -> None:
    """InvalidArgumentError unless a clock may show that time; `earliest` is what it is now for
    those who get it.
    """
    checks = FieldChecks()
    if customer_id:
        check_customer_id(checks, customer_id, "customerId")
    _check_time(checks, "now", time, earliest, real)
    checks.done()


def check_advance(clock: Clock, time: datetime, real: datetime) -> None:
    """InvalidArgumentError unless the clock may be advanced to that time."""
    checks = FieldChecks()
    checks.require(time > clock.time, "to", f"must be after {_text(clock.time)}: it goes forward")
    _check_time(checks, "to", time, clock.time, real)
    checks.done()


def _check_time(
    checks: FieldChecks, field: str, time: datetime, earliest: datetime, real: datetime
) -> None:
    latest = min(earliest + timedelta(days=ADVANCE_DAYS_MAX), real + timedelta(days=AHEAD_DAYS_MAX))
    message = f"must be from {_text(earliest)} to {_text(latest)}"
    if not checks.problems:
        checks.require(earliest <= time <= latest, field, message)


def _text(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")
