"""How a subscription goes on: phases, each on a version of a plan. Pure.

Phases abut from the subscription's start to its end, so that each second has exactly one. A phase
never changes once what it says is invoiced. Usage is cut at quarters of an hour, what is priced by
time at the second: each border of phases has two instants, of which one is on a quarter. The usage
of a quarter is of one phase alone; others that lie within it are of time only.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from services.invoicer.periods import BillingPeriod, Period


class PhaseKind(StrEnum):
    """TRIAL and PAUSED: nothing is billed, usage neither. BILLED: everything is."""

    TRIAL = "TRIAL"
    BILLED = "BILLED"
    PAUSED = "PAUSED"


@dataclass(frozen=True, slots=True)
class Phase:
    """[start_time, end_time), None: open, with one plan and quantity.

    Periods are cut as from `anchor_time`; `quantity` times the base price is charged. From
    `exact_start_time` to `exact_end_time` it is billed by time; None: as usage is. The first period
    from the anchor on is priced from `exact_anchor_time` on; None: from the anchor.
    """

    start_time: datetime
    end_time: datetime | None
    kind: PhaseKind
    plan_id: str
    plan_version: int
    billing_period: BillingPeriod
    anchor_time: datetime
    quantity: int
    create_time: datetime
    exact_start_time: datetime | None = None
    exact_end_time: datetime | None = None
    exact_anchor_time: datetime | None = None

    @property
    def is_time_only(self) -> bool:
        """Whether it has no usage: that of its quarter of an hour is a later phase's."""
        return self.start_time == self.end_time

    @property
    def priced_from(self) -> datetime:
        """From when on it is billed by time: within the quarter of an hour around its start."""
        return self.exact_start_time or self.start_time

    @property
    def priced_until(self) -> datetime | None:
        """Until when it is billed by time, where the next one begins to be; None: open."""
        return self.exact_end_time or self.end_time

    @property
    def anchored_from(self) -> datetime:
        """From when on the first period from the anchor on is priced."""
        return self.exact_anchor_time or self.anchor_time

    def is_at(self, instant: datetime) -> bool:
        """Whether usage at `instant` is of it."""
        return self.start_time <= instant and (self.end_time is None or instant < self.end_time)

    def within(self, window: Period) -> Period:
        """What of the window is billed by time as it says; one without a second: nothing."""
        start = min(max(self.priced_from, window.start), window.end)
        end = min(self.priced_until or window.end, window.end)
        return Period(start, max(start, end))

    def continues(self, before: "Phase") -> bool:
        """Whether usage goes on being billed as in `before`; the quantity may differ."""
        return self._terms() == before._terms()

    def repeats(self, before: "Phase") -> bool:
        """Whether everything goes on as in `before`."""
        return self.quantity == before.quantity and self.continues(before)

    def _terms(self) -> tuple[object, ...]:
        plan = (self.kind, self.plan_id, self.plan_version, self.billing_period)
        return (*plan, self.anchor_time, self.exact_anchor_time)


@dataclass(frozen=True, slots=True)
class Border:
    """Where phases meet, or the last one ends: for usage at `time`, on a quarter of an hour; for
    what is priced by time at `exact`, a whole second.
    """

    time: datetime
    exact: datetime

    @property
    def exact_time(self) -> datetime | None:
        """As a phase has it."""
        return None if self.exact == self.time else self.exact


def run_at(phases: Sequence[Phase], instant: datetime) -> tuple[Phase, ...]:
    """The phase that usage at `instant` is of, with those around it that differ in quantity only.
    Those of time only are left out, and interrupt nothing.

    None when there is no phase at that time.
    """
    found = [phase for phase in phases if not phase.is_time_only]
    index = next((i for i, phase in enumerate(found) if phase.is_at(instant)), None)
    if index is None:
        return ()
    first = last = index
    while first > 0 and found[first].continues(found[first - 1]):
        first -= 1
    while last + 1 < len(found) and found[last + 1].continues(found[last]):
        last += 1
    return tuple(found[first : last + 1])


def cut_at(phases: Sequence[Phase], border: Border) -> tuple[list[Phase], list[Phase]]:
    """What of them is before the border by time, and what is after it. Both may hold a piece
    without a second, for arranged() to look at.
    """
    before: list[Phase] = []
    after: list[Phase] = []
    for phase in phases:
        until = phase.priced_until
        if after or border.exact < phase.priced_from:
            after.append(phase)
        elif until is not None and until <= border.exact:
            before.append(phase)
        else:
            start, end = border.time, border.exact_time
            before.append(replace(phase, end_time=start, exact_end_time=end))
            after.append(replace(phase, start_time=start, exact_start_time=end))
    return before, after


def arranged(phases: Sequence[Phase], kept: Collection[datetime] = ()) -> tuple[Phase, ...]:
    """The same with usage where it belongs: where one begins at an earlier quarter of an hour than
    those before it, these have no usage from there on.

    What has neither time nor usage is left out. Neighbours that do not differ are one phase, unless
    the second at which they meet is to be `kept`.
    """
    result: list[Phase] = []
    for phase in _with_usage(phases):
        before = result[-1] if result else None
        if before and phase.repeats(before) and phase.priced_from not in kept:
            result[-1] = replace(
                before, end_time=phase.end_time, exact_end_time=phase.exact_end_time
            )
        else:
            result.append(phase)
    return tuple(result)


def _with_usage(phases: Sequence[Phase]) -> Iterator[Phase]:
    """Each with the usage that those after it leave, in their order."""
    starts: list[datetime] = []
    for phase in reversed(phases):
        starts.append(min(phase.start_time, starts[-1]) if starts else phase.start_time)
    starts.reverse()
    ends = [*starts[1:], phases[-1].end_time] if phases else []
    for phase, start, end in zip(phases, starts, ends, strict=True):
        begun, until = phase.priced_from, phase.priced_until
        if start == end and begun == until:
            continue
        yield replace(
            phase,
            start_time=start,
            end_time=end,
            exact_start_time=Border(start, begun).exact_time,
            exact_end_time=None if until in (None, end) else until,
        )
