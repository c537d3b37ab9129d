"""Times as RFC 3339 spells them, exact to the microsecond."""

import re
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# More than nine digits of a second are refused; the seventh to ninth (nanoseconds) are dropped.
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?"
    r"(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))",
    re.ASCII,
)
EXPECTED = 'must be a time with an offset such as "2026-01-31T09:30:00Z" (RFC 3339)'


def parse_micros(text: str) -> int | None:
    """Microseconds since 1970-01-01T00:00:00Z; None when `text` is no RFC 3339 time."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, ahead_h, ahead_m = match.groups()
    try:
        local = datetime(
            int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=UTC
        )
    except ValueError:
        return None
    micros = (local - EPOCH) // _MICROSECOND
    if fraction:
        micros += int(fraction[:6].ljust(6, "0"))
    if sign:
        offset = (int(ahead_h) * 3_600 + int(ahead_m) * 60) * 1_000_000
        micros += -offset if sign == "+" else offset
    return micros


def parse(text: str) -> datetime | None:
    """The time in UTC; None when `text` is no RFC 3339 time between the years 1 and 9999."""
    micros = parse_micros(text)
    if micros is None:
        return None
    try:
        return EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return None
