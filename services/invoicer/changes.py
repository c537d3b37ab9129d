"""What becomes of a subscription that is changed, paused, resumed or cancelled. Pure.

A change concerns what is not invoiced yet. Usage is cut at quarters of an hour: what begins, begins
with the running quarter, what ends, ends with it, so that no usage until now is left out. What is
priced by time is cut at the second, however many changes a quarter has.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum

from services.invoicer.domain import Plan, Subscription, SubscriptionStatus
from services.invoicer.periods import QUARTER_HOUR, Period, quarter_hour_of, whole_at
from services.invoicer.phases import Border, Phase, PhaseKind, arranged, cut_at


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
    if now < subscription.start_time:
        return _aligned(subscription.start_time)
    assert subscription.period is not None
    second = _second(subscription, now)
    return Border(max(quarter_hour_of(second), subscription.period.start), second)


def end_at(subscription: Subscription, timing: Timing, now: datetime) -> Border:
    """When something ends that is asked to end `now`."""
    border = begin_at(subscription, timing, now)
    if timing is Timing.PERIOD_END or now < subscription.start_time:
        return border
    return Border(border.time + QUARTER_HOUR, border.exact)


def _aligned(time: datetime) -> Border:
    return Border(time, time)


def _second(subscription: Subscription, now: datetime) -> datetime:
    """The running one, or the first one that is not invoiced."""
    assert subscription.period is not None
    return max(now.replace(microsecond=0), subscription.exact_at(subscription.period.start))


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

    Without a trial its time is priced from `exact_start` on, as its first period is; None: from the
    start.
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
        return (replace(billed, exact_start_time=exact_time, exact_anchor_time=exact_time),)
    trial = replace(billed, start_time=start, end_time=trial_end, kind=PhaseKind.TRIAL)
    return (trial, billed)


def paused(
    subscription: Subscription, border: Border, end: datetime | None, now: datetime
) -> Subscription:
    """Not billed from the border until `end`; None: until it is resumed."""
    before, after = cut_at(subscription.phases, border)
    following: list[Phase] = []
    if end is not None:
        after, following = cut_at(after, _aligned(end))
    during = _of_kind(after, PhaseKind.BILLED, PhaseKind.PAUSED, now)
    return _with_phases(subscription, [*before, *during, *following])


def _of_kind(phases: Sequence[Phase], old: PhaseKind, new: PhaseKind, now: datetime) -> list[Phase]:
    """The same, of the `new` kind where they were of the old one."""
    return [
        replace(each, kind=new, create_time=now) if each.kind is old else each for each in phases
    ]


def is_paused(subscription: Subscription, now: datetime) -> bool:
    """Whether it is paused, or will be."""
    return any(
        phase.kind is PhaseKind.PAUSED and (phase.end_time is None or phase.end_time > now)
        for phase in subscription.phases
    )


def resumed(subscription: Subscription, border: Border, now: datetime) -> Subscription:
    """Billed again from the border on, also where a pause was to begin later."""
    before, after = cut_at(subscription.phases, border)
    after = _of_kind(after, PhaseKind.PAUSED, PhaseKind.BILLED, now)
    return _with_phases(subscription, [*before, *after])


def changed(
    subscription: Subscription, border: Border, plan: Plan, quantity: int, now: datetime
) -> Subscription:
    """On `plan` with `quantity` from the border on; trials and pauses stay where they are."""
    before, after = cut_at(subscription.phases, _where_billed(subscription, border))
    moved = (_on(phase, plan, quantity, border, now) for phase in after)
    return _with_phases(subscription, [*before, *moved])


def migrated(subscription: Subscription, border: Border, plan: Plan, now: datetime) -> Subscription:
    """On this version of `plan` wherever it is on another one of it from the border on."""
    before, after = cut_at(subscription.phases, _where_billed(subscription, border))
    moved = (
        _on(phase, plan, phase.quantity, border, now) if phase.plan_id == plan.id else phase
        for phase in after
    )
    return _with_phases(subscription, [*before, *moved])


def _where_billed(subscription: Subscription, border: Border) -> Border:
    """The border; in a pause, which has no usage, not before its first quarter of an hour: that is
    billed as before the pause.
    """
    phase = subscription.priced_at(border.exact)
    if phase.kind is not PhaseKind.PAUSED:
        return border
    return replace(border, time=max(border.time, phase.start_time))


def _on(phase: Phase, plan: Plan, quantity: int, border: Border, now: datetime) -> Phase:
    """The phase on `plan`. With periods of another length they begin anew at the border; in a trial
    they begin after it anyway.
    """
    anchor = Border(phase.anchor_time, phase.anchored_from)
    same = phase.billing_period is plan.content.billing_period
    if not same and phase.anchor_time <= border.time:
        anchor = Border(quarter_hour_of(border.exact), border.exact)
    made = replace(
        phase,
        plan_id=plan.id,
        plan_version=plan.version,
        billing_period=plan.content.billing_period,
        anchor_time=anchor.time,
        exact_anchor_time=anchor.exact_time,
        quantity=quantity,
    )
    return phase if made == phase else replace(made, create_time=now)


def cancelled(subscription: Subscription, border: Border) -> Subscription:
    """Over at the border; one that has not begun by then never begins."""
    before, _ = cut_at(subscription.phases, border)
    over = replace(subscription, status=SubscriptionStatus.CANCELLED, cancel_time=border.time)
    return _with_phases(over, before)


def uncancelled(subscription: Subscription, status: SubscriptionStatus) -> Subscription:
    """Going on as it is at its end, which has not come; a trial with what was to follow it."""
    last = subscription.phases[-1]
    following = [replace(last, end_time=None, exact_end_time=None)]
    if last.kind is PhaseKind.TRIAL:
        trial = replace(last, end_time=last.anchor_time, exact_end_time=None)
        billed = replace(
            trial,
            start_time=last.anchor_time,
            end_time=None,
            kind=PhaseKind.BILLED,
            exact_start_time=None,
        )
        following = [trial, billed]
    again = replace(subscription, status=status, cancel_time=None)
    return _with_phases(again, [*subscription.phases[:-1], *following])


def _with_phases(subscription: Subscription, phases: Sequence[Phase]) -> Subscription:
    """The same with other phases; the period that is not invoiced yet may be cut, or go on."""
    assert subscription.period is not None
    start = subscription.period.start
    invoiced = subscription.exact_at(start)
    # Where an invoice ended in the middle of a period is known by the border of phases there.
    kept = {each.priced_from for each in subscription.phases if each.priced_from <= invoiced}
    changed = replace(
        subscription, phases=arranged(phases, kept), exact_period_start=invoiced, period=None
    )
    period = changed.part_from(start)
    opening = subscription.opening and period is not None
    return replace(changed, period=period, opening=opening)


def part_at(subscription: Subscription, period: Period, instant: datetime) -> Period:
    """`period`, or the part after it that `instant` lies in, or the last one."""
    while period.end <= instant and (following := subscription.part_from(period.end)):
        period = following
    return period
