"""What a request about a subscription may contain; all problems are named at once. Pure."""

from datetime import datetime, timedelta

from services.invoicer.changes import Timing
from services.invoicer.periods import is_on_quarter_hour
from services.kit.errors import FieldChecks

TRIAL_DAYS_MAX = 730
PAUSE_DAYS_MAX = 730
QUANTITY_MAX = 1_000_000


def check_timing(name: str) -> Timing:
    """The timing called `name`; InvalidArgumentError when there is none of that name."""
    checks = FieldChecks()
    checks.require(name in Timing.__members__, "at", f"must be one of {', '.join(Timing)}")
    checks.done()
    return Timing(name)


def check_trial(checks: FieldChecks, days: int, end: datetime | None, start: datetime) -> None:
    """Note a problem unless a trial can be so long, or until then; 0 and None: there is none."""
    message = f"must be 1 to {TRIAL_DAYS_MAX}"
    checks.require(0 <= days <= TRIAL_DAYS_MAX, "trialDays", message)
    if end is None:
        return
    checks.require(days == 0, "trialEndsAt", "must not be given besides trialDays")
    checks.require(is_on_quarter_hour(end), "trialEndsAt", "must lie on a quarter of an hour")
    fits = timedelta(0) < end - start <= timedelta(days=TRIAL_DAYS_MAX)
    message = f"must be after the start, at most {TRIAL_DAYS_MAX} days"
    checks.require(fits, "trialEndsAt", message)


def check_quantity(checks: FieldChecks, quantity: int) -> None:
    """Note a problem unless the base price can be charged so often."""
    allowed = f"must be a whole number, 1 to {QUANTITY_MAX:,}"
    checks.require(1 <= quantity <= QUANTITY_MAX, "quantity", allowed)


def check_resume(resume: datetime | None, start: datetime) -> None:
    """InvalidArgumentError unless a pause from `start` on can end then; None: it is open."""
    if resume is None:
        return
    checks = FieldChecks()
    checks.require(is_on_quarter_hour(resume), "resumesAt", "must lie on a quarter of an hour")
    fits = timedelta(0) < resume - start <= timedelta(days=PAUSE_DAYS_MAX)
    message = f"must be after the pause begins, at most {PAUSE_DAYS_MAX} days"
    checks.require(fits, "resumesAt", message)
    checks.done()
