"""What becomes of a subscription that is changed, paused, resumed or cancelled. Pure.

A change concerns what is not invoiced yet. Usage is cut at quarters of an hour: what begins, begins
with the running quarter, what ends, ends with it, so that no usage until now is left out. What is
priced by time is cut at the second. Of several changes in a quarter the last one counts, from the
second of the first one on. Where a whole period begins, it begins on the quarter for both.
"""

from dataclasses import replace
from datetime import datetime
from enum import StrEnum

from services.invoicer.domain import Plan, Subscription, SubscriptionStatus
from services.invoicer.periods import (
    QUARTER_HOUR,
    BillingAnchor,
    Cycle,
    Period,
    quarter_hour_of,
    whole_at,
)
from services.invoicer.phases import (
    Border,
    Phase,
    PhaseKind,
    cut_at,
    ended,
    joined,
    moved_to,
)


class Timing(StrEnum):
    """NOW: with this second, usage with the running quarter of an hour. PERIOD_END: with the
    running period.
    """

    NOW = "NOW"
    PERIOD_END = "PERIOD_END"


def begin_at(subscription: Subscription, timing: Timing, now: datetime) -> Border:
    """When something begins that is asked for `now`."""
    if timing is Timing.PERIOD_END:
        return _aligned(period_end(subscription, now))
    start = quarter_hour_of(now)
    if start < subscription.start_time:
        return _aligned(subscription.start_time)
    assert subscription.period is not None
    billed = subscription.phase_at(start).kind is PhaseKind.BILLED
    cycle = subscription.cycle_at(start)
    # The seconds from there to now would lie outside of the period that they are billed in.
    begins = start in (subscription.period.start, whole_at(cycle, start).start)
    return _aligned(start) if billed and begins else Border(start, _second(now))


def resume_at(subscription: Subscription, now: datetime) -> Border:
    """When a pause ends that is asked to end `now`: as begin_at, but one that follows the second
    until which everything is invoiced keeps a quarter of an hour, for there is no time before it.
    """
    border = begin_at(subscription, Timing.NOW, now)
    phase, period = subscription.phase_at(border.time), subscription.period
    assert period is not None
    is_next = phase.start_time == border.time == period.start
    if is_next and phase.kind is PhaseKind.PAUSED and phase.priced_from < border.time:
        return _aligned(border.time + QUARTER_HOUR)
    return border


def end_at(subscription: Subscription, timing: Timing, now: datetime) -> Border:
    """When something ends that is asked to end `now`."""
    if timing is Timing.PERIOD_END:
        return _aligned(period_end(subscription, now))
    end = quarter_hour_of(now) + QUARTER_HOUR
    if end <= subscription.start_time:
        return _aligned(subscription.start_time)
    # A pause that was asked for before may have begun in this quarter.
    following = subscription.phase_at(end)
    begun = following.priced_from if following.start_time == end else end
    return Border(end, min(_second(now), begun))


def first_second(cycle: Cycle, now: datetime) -> datetime:
    """From when on the time of a subscription is priced that begins with the quarter of an hour
    at the start of its cycle, where `now` lies: a whole period begins with the quarter.
    """
    whole = whole_at(cycle, cycle.start).start == cycle.start
    return cycle.start if whole else _second(now)


def _aligned(time: datetime) -> Border:
    return Border(time, time)


def _second(now: datetime) -> datetime:
    return now.replace(microsecond=0)


def period_end(subscription: Subscription, now: datetime) -> datetime:
    """The end of the whole period, or of the trial, that runs or will be the first."""
    instant = max(now, subscription.start_time)
    phase = subscription.phase_at(instant)
    if phase.kind is PhaseKind.TRIAL:
        return phase.anchor_time
    return whole_at(subscription.cycle_at(instant), instant).end


def first_phases(
    plan: Plan,
    start: datetime,
    trial_end: datetime | None,
    quantity: int,
    now: datetime,
    exact_start: datetime | None = None,
) -> tuple[Phase, ...]:
    """The phases of a subscription that is made now; its periods begin when a trial has ended.

    Without a trial its time is priced from `exact_start` on; None: from the start.
    """
    billed = Phase(
        start_time=trial_end or start,
        end_time=None,
        kind=PhaseKind.BILLED,
        plan_id=plan.id,
        plan_version=plan.version,
        billing_period=plan.content.billing_period,
        anchor_time=trial_end or start,
        quantity=quantity,
        create_time=now,
    )
    if trial_end is None:
        exact_time = Border(start, exact_start or start).exact_time
        return (replace(billed, exact_start_time=exact_time),)
    trial = replace(billed, start_time=start, end_time=trial_end, kind=PhaseKind.TRIAL)
    return (trial, billed)


def paused(
    subscription: Subscription, border: Border, end: datetime | None, now: datetime
) -> Subscription:
    """Not billed from the border until `end`; None: until it is resumed."""
    start = border.time
    phases = cut_at(subscription.phases, border)
    before = next((phase for phase in phases if phase.end_time == start), None)
    if before is not None:
        # Something else may have been to begin there.
        phases = moved_to(phases, Border(start, max(border.exact, before.priced_from)))
    if end is not None:
        phases = cut_at(phases, _aligned(end))
    return _with_phases(
        subscription,
        [
            replace(phase, kind=PhaseKind.PAUSED, create_time=now)
            if start <= phase.start_time
            and (end is None or phase.start_time < end)
            and phase.kind is PhaseKind.BILLED
            else phase
            for phase in phases
        ],
    )


def is_paused(subscription: Subscription, now: datetime) -> bool:
    """Whether it is paused, or will be."""
    return any(
        phase.kind is PhaseKind.PAUSED and (phase.end_time is None or phase.end_time > now)
        for phase in subscription.phases
    )


def resumed(subscription: Subscription, border: Border, now: datetime) -> Subscription:
    """Billed again from the border on, also where a pause was to begin later."""
    start, phases = border.time, cut_at(subscription.phases, border)
    for phase in phases:
        pause = start <= phase.start_time and phase.kind is PhaseKind.PAUSED
        if pause and phase.priced_from < phase.start_time:
            # What is billed has no second before its first quarter of an hour.
            phases = moved_to(phases, _aligned(phase.start_time))
    return _with_phases(
        subscription,
        [
            replace(phase, kind=PhaseKind.BILLED, create_time=now)
            if start <= phase.start_time and phase.kind is PhaseKind.PAUSED
            else phase
            for phase in phases
        ],
    )


def changed(
    subscription: Subscription, border: Border, plan: Plan, quantity: int, now: datetime
) -> Subscription:
    """On `plan` with `quantity` from the border on; trials and pauses stay where they are."""
    start = border.time
    return _with_phases(
        subscription,
        [
            _on(phase, plan, quantity, start, now) if start <= phase.start_time else phase
            for phase in _cut_for(subscription, border, plan)
        ],
    )


def migrated(subscription: Subscription, border: Border, plan: Plan, now: datetime) -> Subscription:
    """On this version of `plan` wherever it is on another one of it from the border on."""
    start = border.time
    return _with_phases(
        subscription,
        [
            _on(phase, plan, phase.quantity, start, now)
            if start <= phase.start_time and phase.plan_id == plan.id
            else phase
            for phase in _cut_for(subscription, border, plan)
        ],
    )


def _cut_for(subscription: Subscription, border: Border, plan: Plan) -> list[Phase]:
    """The phases with the border from which on it is to be on `plan`.

    Periods that begin anew there are whole ones, unless those before are invoiced to the second.
    """
    phases = cut_at(subscription.phases, border)
    first = next((phase for phase in phases if phase.is_at(border.time)), None)
    assert subscription.period is not None
    anew = (
        first is not None
        and first.billing_period is not plan.content.billing_period
        and first.anchor_time <= border.time
        and subscription.billing_anchor is BillingAnchor.ANNIVERSARY
        and subscription.period.start < border.time
    )
    return moved_to(phases, _aligned(border.time)) if anew else phases


def _on(phase: Phase, plan: Plan, quantity: int, start: datetime, now: datetime) -> Phase:
    """The phase on `plan`. With periods of another length they begin anew at `start`; in a trial
    they begin after it anyway.
    """
    same = phase.billing_period is plan.content.billing_period
    made = replace(
        phase,
        plan_id=plan.id,
        plan_version=plan.version,
        billing_period=plan.content.billing_period,
        anchor_time=phase.anchor_time if same or phase.anchor_time > start else start,
        quantity=quantity,
    )
    return phase if made == phase else replace(made, create_time=now)


def cancelled(subscription: Subscription, border: Border) -> Subscription:
    """Over at the border; one that has not begun by then never begins."""
    phases = [phase for phase in subscription.phases if phase.start_time < border.time]
    if phases:
        phases[-1] = ended(phases[-1], border)
    over = replace(subscription, status=SubscriptionStatus.CANCELLED, cancel_time=border.time)
    return _with_phases(over, phases)


def uncancelled(subscription: Subscription, status: SubscriptionStatus) -> Subscription:
    """Going on as it is at its end, which has not come; a trial with what was to follow it."""
    last = subscription.phases[-1]
    following = [replace(last, end_time=None, exact_end_time=None)]
    if last.kind is PhaseKind.TRIAL:
        trial = replace(last, end_time=last.anchor_time, exact_end_time=None)
        billed = replace(trial, start_time=last.anchor_time, end_time=None, kind=PhaseKind.BILLED)
        following = [trial, billed]
    again = replace(subscription, status=status, cancel_time=None)
    return _with_phases(again, [*subscription.phases[:-1], *following])


def _with_phases(subscription: Subscription, phases: list[Phase]) -> Subscription:
    """The same with other phases; the period that is not invoiced yet may be cut, or go on."""
    assert subscription.period is not None
    changed = replace(subscription, phases=joined(phases, subscription.period.start))
    period = changed.part_from(subscription.period.start)
    return replace(changed, period=period, opening=subscription.opening and period is not None)


def part_at(subscription: Subscription, period: Period, instant: datetime) -> Period:
    """`period`, or the part after it that `instant` lies in, or the last one."""
    while period.end <= instant and (following := subscription.part_from(period.end)):
        period = following
    return period
