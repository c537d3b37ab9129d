"""How a subscription goes on: phases, each on a version of a plan. Pure.

Phases abut from the subscription's start to its end, so that each second has exactly one. A phase
never changes once what it says is invoiced. Usage is cut at quarters of an hour, what is priced by
time at the second: each border of phases has two instants, of which one is on a quarter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from services.invoicer.periods import BillingPeriod


class PhaseKind(StrEnum):
    """TRIAL and PAUSED: nothing is billed, usage neither. BILLED: everything is."""

    TRIAL = "TRIAL"
    BILLED = "BILLED"
    PAUSED = "PAUSED"


@dataclass(frozen=True, slots=True)
class Phase:
    """[start_time, end_time), None: open, with one plan and quantity.

    Periods are cut as from `anchor_time`; `quantity` times the base price is charged. From
    `exact_start_time` to `exact_end_time` it is billed by time; None: as usage is.
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

    @property
    def priced_from(self) -> datetime:
        """From when on it is billed by time: within the quarter of an hour around its start."""
        return self.exact_start_time or self.start_time

    @property
    def priced_until(self) -> datetime | None:
        """Until when it is billed by time, where the next one begins to be; None: open."""
        return self.exact_end_time or self.end_time

    def is_at(self, instant: datetime) -> bool:
        """Whether `instant` lies in it."""
        return self.start_time <= instant and (self.end_time is None or instant < self.end_time)

    def continues(self, before: "Phase") -> bool:
        """Whether usage goes on being billed as in `before`; the quantity may differ."""
        return (
            self.kind,
            self.plan_id,
            self.plan_version,
            self.billing_period,
            self.anchor_time,
        ) == (
            before.kind,
            before.plan_id,
            before.plan_version,
            before.billing_period,
            before.anchor_time,
        )


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
    """The phase that `instant` lies in, with those around it that differ in quantity only.

    None when there is no phase at that time.
    """
    index = next((i for i, phase in enumerate(phases) if phase.is_at(instant)), None)
    if index is None:
        return ()
    first = last = index
    while first > 0 and phases[first].continues(phases[first - 1]):
        first -= 1
    while last + 1 < len(phases) and phases[last + 1].continues(phases[last]):
        last += 1
    return tuple(phases[first : last + 1])


def cut_at(phases: Sequence[Phase], border: Border) -> list[Phase]:
    """The same, with the border when it lies within a phase; one that is there stays as it is."""
    pieces: list[Phase] = []
    for phase in phases:
        if phase.is_at(border.time) and phase.start_time != border.time:
            pieces += [ended(phase, border), _begun(phase, _within(phase, border))]
        else:
            pieces.append(phase)
    return pieces


def ended(phase: Phase, border: Border) -> Phase:
    """The phase, over at the border; never after it was over before, nor before it began."""
    inside = _within(phase, border)
    return replace(phase, end_time=inside.time, exact_end_time=inside.exact_time)


def moved_to(phases: Sequence[Phase], border: Border) -> list[Phase]:
    """The same, with the border that is at this quarter of an hour at another second."""
    return [
        _begun(phase, border)
        if phase.start_time == border.time
        else replace(phase, exact_end_time=border.exact_time)
        if phase.end_time == border.time
        else phase
        for phase in phases
    ]


def _begun(phase: Phase, border: Border) -> Phase:
    return replace(phase, start_time=border.time, exact_start_time=border.exact_time)


def _within(phase: Phase, border: Border) -> Border:
    """The border, with its second within those of the phase."""
    exact = max(border.exact, phase.priced_from)
    return replace(border, exact=min(exact, phase.priced_until or exact))


def joined(phases: Sequence[Phase], invoiced: datetime | None = None) -> tuple[Phase, ...]:
    """The same, with neighbours that do not differ in one.

    Where what is invoiced (until `invoiced`) ends within a quarter of an hour the border stays.
    """
    result: list[Phase] = []
    for phase in phases:
        before = result[-1] if result else None
        kept = invoiced and phase.start_time <= invoiced and phase.exact_start_time
        same = before and phase.continues(before) and phase.quantity == before.quantity
        if before and same and not kept:
            result[-1] = replace(
                before, end_time=phase.end_time, exact_end_time=phase.exact_end_time
            )
        else:
            result.append(phase)
    return tuple(result)
