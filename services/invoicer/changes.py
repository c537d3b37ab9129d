"""What becomes of a subscription that is changed, paused, resumed or cancelled. Pure.

A change concerns what is not invoiced yet, from a quarter of an hour on. What begins, begins with
the running quarter, what ends, ends with it: no usage until now is left out.
"""

from dataclasses import replace
from datetime import datetime
from enum import StrEnum

from services.invoicer.domain import Plan, Subscription, SubscriptionStatus
from services.invoicer.periods import QUARTER_HOUR, Period, quarter_hour_of, whole_at
from services.invoicer.phases import Phase, PhaseKind, cut_at, joined


class Timing(StrEnum):
    """NOW: with the running quarter of an hour. PERIOD_END: with the running period."""

    NOW = "NOW"
    PERIOD_END = "PERIOD_END"


def begin_at(subscription: Subscription, timing: Timing, now: datetime) -> datetime:
    """When something begins that is asked for `now`."""
    if timing is Timing.PERIOD_END:
        return period_end(subscription, now)
    return max(quarter_hour_of(now), subscription.start_time)


def end_at(subscription: Subscription, timing: Timing, now: datetime) -> datetime:
    """When something ends that is asked to end `now`."""
    if timing is Timing.PERIOD_END:
        return period_end(subscription, now)
    return max(quarter_hour_of(now) + QUARTER_HOUR, subscription.start_time)


def period_end(subscription: Subscription, now: datetime) -> datetime:
    """The end of the whole period, or of the trial, that runs or will be the first."""
    instant = max(now, subscription.start_time)
    phase = subscription.phase_at(instant)
    if phase.kind is PhaseKind.TRIAL:
        return phase.anchor_time
    return whole_at(subscription.cycle_at(instant), instant).end


def first_phases(
    plan: Plan, start: datetime, trial_end: datetime | None, quantity: int, now: datetime
) -> tuple[Phase, ...]:
    """The phases of a subscription that is made now; its periods begin when a trial has ended."""
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
        return (billed,)
    trial = replace(billed, start_time=start, end_time=trial_end, kind=PhaseKind.TRIAL)
    return (trial, billed)


def paused(
    subscription: Subscription, start: datetime, end: datetime | None, now: datetime
) -> Subscription:
    """Not billed in [start, end); None: until it is resumed."""
    phases = cut_at(subscription.phases, start)
    if end is not None:
        phases = cut_at(phases, end)
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


def resumed(subscription: Subscription, start: datetime, now: datetime) -> Subscription:
    """Billed again from `start` on, also where a pause was to begin later."""
    return _with_phases(
        subscription,
        [
            replace(phase, kind=PhaseKind.BILLED, create_time=now)
            if start <= phase.start_time and phase.kind is PhaseKind.PAUSED
            else phase
            for phase in cut_at(subscription.phases, start)
        ],
    )


def changed(
    subscription: Subscription, start: datetime, plan: Plan, quantity: int, now: datetime
) -> Subscription:
    """On `plan` with `quantity` from `start` on; trials and pauses stay where they are."""
    return _with_phases(
        subscription,
        [
            _on(phase, plan, quantity, start, now) if start <= phase.start_time else phase
            for phase in cut_at(subscription.phases, start)
        ],
    )


def migrated(
    subscription: Subscription, start: datetime, plan: Plan, now: datetime
) -> Subscription:
    """On this version of `plan` wherever it is on another one of it from `start` on."""
    return _with_phases(
        subscription,
        [
            _on(phase, plan, phase.quantity, start, now)
            if start <= phase.start_time and phase.plan_id == plan.id
            else phase
            for phase in cut_at(subscription.phases, start)
        ],
    )


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


def cancelled(subscription: Subscription, end: datetime) -> Subscription:
    """Over at `end`; one that has not begun by then never begins."""
    phases = [
        replace(phase, end_time=end if phase.is_at(end) else phase.end_time)
        for phase in subscription.phases
        if phase.start_time < end
    ]
    ended = replace(subscription, status=SubscriptionStatus.CANCELLED, cancel_time=end)
    return _with_phases(ended, phases)


def uncancelled(subscription: Subscription, status: SubscriptionStatus) -> Subscription:
    """Going on as it is at its end, which has not come; a trial with what was to follow it."""
    last = subscription.phases[-1]
    following = [replace(last, end_time=None)]
    if last.kind is PhaseKind.TRIAL:
        trial = replace(last, end_time=last.anchor_time)
        billed = replace(trial, start_time=last.anchor_time, end_time=None, kind=PhaseKind.BILLED)
        following = [trial, billed]
    again = replace(subscription, status=status, cancel_time=None)
    return _with_phases(again, [*subscription.phases[:-1], *following])


def _with_phases(subscription: Subscription, phases: list[Phase]) -> Subscription:
    """The same with other phases; the period that is not invoiced yet may be cut, or go on."""
    changed = replace(subscription, phases=joined(phases))
    assert subscription.period is not None
    period = changed.part_from(subscription.period.start)
    return replace(changed, period=period, opening=subscription.opening and period is not None)


def part_at(subscription: Subscription, period: Period, instant: datetime) -> Period:
    """`period`, or the part after it that `instant` lies in, or the last one."""
    while period.end <= instant and (following := subscription.part_from(period.end)):
        period = following
    return period
