"""What of a part of a period is priced by time: for each plan the seconds that it was there. Pure.

A part is billed on one invoice. Its usage is of one plan, but time may have been of others besides:
of those that came and went within a quarter of an hour, and, where a period begins with a change in
its first quarter, of the plan before it.
"""

from dataclasses import dataclass

from services.invoicer.adjustments import Claim
from services.invoicer.base_prices import Segment
from services.invoicer.domain import Subscription
from services.invoicer.periods import BillingAnchor, Period, whole_at
from services.invoicer.phases import Phase, PhaseKind


@dataclass(frozen=True, slots=True)
class PricedTime:
    """The time of a part that is of one plan, in segments of one quantity each, by time.

    `whole`: the period of the plan that it is a part of; `undivided`: what of that counts as a
    whole one for amounts off. `claim`: which lines are about it.
    """

    phase: Phase
    segments: tuple[Segment, ...]
    whole: Period
    undivided: Period
    claim: Claim

    @property
    def has_usage(self) -> bool:
        """Whether the part's usage is of this plan."""
        return self.claim.has_usage

    @property
    def periods(self) -> tuple[Period, ...]:
        """Its seconds, consecutive ones together."""
        merged: list[Period] = []
        for each in (segment.period for segment in self.segments):
            if merged and merged[-1].end == each.start:
                merged[-1] = Period(merged[-1].start, each.end)
            else:
                merged.append(each)
        return tuple(merged)


def priced_times(
    subscription: Subscription, part: Period, exact: Period | None = None
) -> list[PricedTime]:
    """The time of a part that is billed: first that of the plan that its usage is of, then that of
    others, by time. `exact`: the part by time, as its invoice has it.
    """
    window = exact or subscription.exact(part)
    main = subscription.phase_at(part.start)
    found: list[tuple[Phase, list[Segment]]] = [(main, [])]
    for phase in subscription.phases:
        segment = Segment(phase.within(window), phase.quantity)
        if phase.kind is not PhaseKind.BILLED or not segment.period.seconds:
            continue
        known = next((each for first, each in found if phase.continues(first)), None)
        if known is None:
            found.append((phase, [segment]))
        else:
            known.append(segment)
    if not found[0][1]:
        # It began and ended in one second; what was paid for it before is credited.
        found[0][1].append(Segment(main.within(window), main.quantity))
    begun = sorted((each.period.start, i) for i, (_, of) in enumerate(found) for each in of)
    claims = (
        Claim(part, window, tuple((start, i == index) for start, i in begun), index == 0)
        for index in range(len(found))
    )
    return [
        _priced(subscription, phase, part, window, tuple(of), claim)
        for (phase, of), claim in zip(found, claims, strict=True)
    ]


def _priced(
    subscription: Subscription,
    phase: Phase,
    part: Period,
    window: Period,
    segments: tuple[Segment, ...],
    claim: Claim,
) -> PricedTime:
    if claim.has_usage:
        whole = subscription.whole_of(part)
    else:
        whole = whole_at(subscription.cycle_of(phase), segments[0].period.start)
    start, end = whole.start, max(whole.end, window.end) if claim.has_usage else whole.end
    anew = subscription.billing_anchor is BillingAnchor.ANNIVERSARY
    if anew and start == phase.anchor_time:
        start = phase.anchored_from
    undivided = Period(max(start, phase.anchored_from), end)
    return PricedTime(phase, segments, Period(start, end), undivided, claim)
