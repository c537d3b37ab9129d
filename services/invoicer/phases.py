"""How a subscription goes on: phases, each on a version of a plan. Pure.

Phases abut from the subscription's start to its end, so that each second has exactly one. A phase
never changes once what it says is invoiced.
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

    Periods are cut as from `anchor_time`; `quantity` times the base price is charged.
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


def cut_at(phases: Sequence[Phase], instant: datetime) -> list[Phase]:
    """The same, with a border at `instant` when it lies within a phase."""
    pieces: list[Phase] = []
    for phase in phases:
        if phase.is_at(instant) and phase.start_time != instant:
            pieces += [replace(phase, end_time=instant), replace(phase, start_time=instant)]
        else:
            pieces.append(phase)
    return pieces


def joined(phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """The same, with neighbours that do not differ in one."""
    result: list[Phase] = []
    for phase in phases:
        before = result[-1] if result else None
        if before and phase.continues(before) and phase.quantity == before.quantity:
            result[-1] = replace(before, end_time=phase.end_time)
        else:
            result.append(phase)
    return tuple(result)
