"""Where the periods of a subscription lie, from its own words. Pure."""

from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

_MONTHS = {"MONTHLY": 1, "QUARTERLY": 3, "YEARLY": 12}
_WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Calendar:
    """Periods count from 0, the one that the subscription begins in."""

    start: datetime
    zone: ZoneInfo
    length: str
    on_calendar: bool
    # From when on the period that begins at the start is priced.
    exact_start: datetime

    @classmethod
    def of(cls, subscription: Mapping[str, Any], phase: Mapping[str, Any]) -> "Calendar":
        """That of a phase of a subscription, from their rows."""
        start = datetime.fromisoformat(phase["anchor_time"])
        exact = phase.get("exact_anchor_time")
        return cls(
            start,
            ZoneInfo(subscription["time_zone"]),
            phase["billing_period"],
            subscription["billing_anchor"] == "CALENDAR",
            datetime.fromisoformat(exact) if exact else start,
        )

    def begin(self, number: int) -> datetime:
        """When period `number` begins; of number 0, on the calendar, before the start."""
        local = self.start.astimezone(self.zone).replace(tzinfo=None, fold=0)
        if self.on_calendar:
            local = local.replace(hour=0, minute=0, second=0, microsecond=0)
        elif number == 0:
            return self.start
        if self.length == "WEEKLY":
            monday = timedelta(days=local.weekday() if self.on_calendar else 0)
            there = local - monday + number * _WEEK
        else:
            there = self._months_on(local, number)
        return there.replace(tzinfo=self.zone).astimezone(UTC)

    def number_at(self, instant: datetime) -> int:
        """The period that an instant lies in."""
        number = 0
        while self.begin(number) > instant:
            number -= 1
        while self.begin(number + 1) <= instant:
            number += 1
        return number

    def share(
        self, start: datetime, end: datetime, undivided: datetime | None = None
    ) -> tuple[Fraction, Fraction]:
        """How much is left of the period in which [start, end) lies, at its start and end.

        `undivided`: from when on what is billed of the period counts as a whole one.
        """
        number = self.number_at(start)
        begin, over = self.begin(number), self.begin(number + 1)
        if number == 0 and not self.on_calendar:
            begin = self.exact_start
        if undivided is not None:
            begin = max(begin, undivided)
        whole = Fraction((over - begin).total_seconds())
        left = (Fraction((over - at).total_seconds()) / whole for at in (start, end))
        first, last = left
        return first, max(last, Fraction(0))

    def _months_on(self, local: datetime, number: int) -> datetime:
        length = _MONTHS[self.length]
        months = local.year * 12 + local.month - 1
        if self.on_calendar:
            months -= months % length
        year, month = divmod(months + number * length, 12)
        day = 1 if self.on_calendar else min(local.day, monthrange(year, month + 1)[1])
        return local.replace(year=year, month=month + 1, day=day)
