"""What is held against what. Pure.

How a difference can be told from usage that is on its way, without stopping either side: of one
metric and hour, read what is counted, then what is accepted, then what is counted once more. When
ingest says that all of it is confirmed, everything accepted up to that moment had been counted by
then; when nothing was counted between the two readings, the same is true of the first and nothing
accepted later is in the second. So the two figures have to be equal, to the last digit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from services.kit.database import TenantKey

HOUR = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class HourKey(NamedTuple):
    """A metric of an organization and mode, and an hour of UTC by its start."""

    organization_id: str
    mode: str
    metric: str
    hour: datetime

    @property
    def tenant(self) -> TenantKey:
        """Whose metric it is."""
        return TenantKey(self.organization_id, self.mode)


@dataclass(frozen=True, slots=True)
class Totals:
    """A number of events and the sum of their amounts."""

    event_count: int
    amount_sum: Decimal


@dataclass(frozen=True, slots=True)
class Accepted:
    """What ingest has accepted and is not void; `moving`: not all of it is confirmed as counted."""

    totals: Totals
    moving: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """An hour of a metric that is not what was accepted."""

    key: HourKey
    accepted: Totals
    counted: Totals


NOTHING = Totals(0, Decimal(0))
NOTHING_ACCEPTED = Accepted(NOTHING, moving=False)

AcceptedHours = Mapping[HourKey, Accepted]
CountedHours = Mapping[HourKey, Totals]


def unequal(accepted: AcceptedHours, counted: CountedHours) -> list[HourKey]:
    """What has to be looked at closely, in the order of the keys."""
    return sorted(
        key
        for key in accepted.keys() | counted.keys()
        if accepted.get(key, NOTHING_ACCEPTED).totals != counted.get(key, NOTHING)
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a close look has found: `difference` None and not `moving`: all is as it should be."""

    difference: Difference | None = None
    moving: bool = False


def judge(key: HourKey, before: Totals, accepted: Accepted, after: Totals) -> Verdict:
    """Of what was counted before and after what was accepted had been read."""
    if accepted.moving or before != after:
        return Verdict(moving=True)
    if before == accepted.totals:
        return Verdict()
    return Verdict(difference=Difference(key, accepted.totals, before))


def hour_of(time: datetime) -> datetime:
    """Start of the hour of UTC that `time` lies in."""
    return time - (time - _EPOCH) % HOUR
