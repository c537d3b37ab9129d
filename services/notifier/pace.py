"""When to try again, and when to leave an endpoint alone. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

JITTER = 0.2
RETRY_AFTER_SHARE_MAX = 2  # a receiver may at most double a delay
RETRY_AFTER_CHARACTERS_MAX = 64
RETRY_AFTER_S_MAX = 86_400.0

# Too Many Requests, Bad Gateway, Gateway Timeout: more of the same only makes it worse.
THROTTLING_STATUSES = frozenset({429, 502, 504})
GONE_STATUS = 410
# An endpoint that throttles rests for 1 s, 2 s, .. 5 min, and is then tried with one webhook.
THROTTLE_FIRST_S = 1.0
THROTTLE_S_MAX = 300.0
THROTTLE_STEPS_MAX = 10

# Nothing but failures for so long, no two of them further apart than the longest of the usual
# pauses between attempts (28.8 h), so that one failure a month is not "for months".
DISABLE_AFTER = timedelta(days=5)
FAILURE_GAP_MAX = timedelta(days=2)


def next_attempt_time(
    delays_s: Sequence[float],
    step: int,
    now: datetime,
    spread: float,
    retry_after_s: float | None = None,
) -> datetime | None:
    """When the attempt at place `step` (from 0) of the schedule is due; None when there is none.

    `spread` from -1 to 1 moves it within +-20 %, so that what failed together does not return
    together. What the receiver asked for (Retry-After) is honoured from once to twice that.
    """
    if step >= len(delays_s):
        return None
    delay_s = delays_s[step] * (1 + JITTER * spread)
    if retry_after_s is not None:
        delay_s = min(max(delay_s, retry_after_s), RETRY_AFTER_SHARE_MAX * delay_s)
    return now + timedelta(seconds=delay_s)


def retry_after_s(header: str, now: datetime) -> float | None:
    """The seconds that Retry-After asks for (RFC 9110, 10.2.3); None when it says nothing of use.

    It is a number of seconds or a date; `now` is the receiver's time.
    """
    text = header.strip()
    if len(text) > RETRY_AFTER_CHARACTERS_MAX:
        return None
    if text.isascii() and text.isdecimal():
        return min(float(text), RETRY_AFTER_S_MAX)
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if until.tzinfo is None:
        return None
    return min(max((until - now).total_seconds(), 0.0), RETRY_AFTER_S_MAX)


def rest_s(asked_s: float | None) -> float:
    """For how long at least an endpoint that has just throttled is left alone."""
    return min(max(asked_s or 0.0, THROTTLE_FIRST_S), THROTTLE_S_MAX)
