"""Who was on what in each second, and what that costs: lists and Fractions, nothing is rounded.

It knows nothing of phases, parts of periods, quarters of an hour or invoices.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction

from services.invoicer.domain import Plan
from services.invoicer.periods import (
    BillingAnchor,
    BillingPeriod,
    Cycle,
    Period,
    quarter_hour_of,
    whole_at,
)
from services.invoicer.phases import PhaseKind


@dataclass(frozen=True)
class Span:
    """[start, end), None: open: on one plan. Its periods count from the second `anchor`."""

    start: datetime
    end: datetime | None
    kind: PhaseKind
    plan: Plan
    quantity: int
    anchor: datetime


class NaiveTime:
    """The spans of one subscription, by time."""

    def __init__(
        self,
        plan: Plan,
        start: datetime,
        trial: datetime | None,
        billing_anchor: BillingAnchor,
        time_zone: str,
    ) -> None:
        self._billing_anchor = billing_anchor
        self._time_zone = time_zone
        billed = Span(trial or start, None, PhaseKind.BILLED, plan, 1, trial or start)
        trials = [replace(billed, start=start, end=trial, kind=PhaseKind.TRIAL)] if trial else []
        self.spans = [*trials, billed]

    def change(self, second: datetime, plan: Plan, quantity: int) -> None:
        """On `plan` from the second on; periods of another length begin with it."""
        for index in self._from(second):
            span = self.spans[index]
            anew = span.plan.content.billing_period is not plan.content.billing_period
            anchor = second if anew and span.anchor <= second else span.anchor
            self.spans[index] = replace(span, plan=plan, quantity=quantity, anchor=anchor)

    def pause(self, second: datetime, end: datetime | None) -> None:
        """Nothing is billed from the second to the end; what was to pause before is forgotten."""
        self.resume(second)
        until = self._from(end) if end else []
        for index in self._from(second):
            if index not in until:
                self._become(index, PhaseKind.BILLED, PhaseKind.PAUSED)

    def resume(self, second: datetime) -> None:
        """Billed from the second on."""
        for index in self._from(second):
            self._become(index, PhaseKind.PAUSED, PhaseKind.BILLED)

    def cancel(self, second: datetime) -> None:
        """Over; one that has only begun is kept, if only for no time."""
        last = self._from(second).start
        begun = [replace(self.spans[0], end=second)] if last == 0 else []
        self.spans[last:] = begun

    def uncancel(self) -> None:
        """Going on as it is at its end, a trial with what follows it."""
        last = self.spans[-1]
        self.spans[-1] = replace(last, end=None)
        if last.kind is PhaseKind.TRIAL:
            billed = replace(last, start=last.anchor, end=None, kind=PhaseKind.BILLED)
            self.spans[-1:] = [replace(last, end=last.anchor), billed]

    def cost(self) -> Fraction:
        """What all of its seconds cost."""
        costs = [
            _price(span.plan, span.quantity, piece, whole, first)
            for span in self.spans
            if span.kind is PhaseKind.BILLED
            for piece, whole, first in self._pieces(span)
        ]
        return sum(costs, Fraction(0))

    def _become(self, index: int, old: PhaseKind, new: PhaseKind) -> None:
        if self.spans[index].kind is old:
            self.spans[index] = replace(self.spans[index], kind=new)

    def _from(self, second: datetime) -> range:
        """The spans from the second on, when one is cut there."""
        for index, span in enumerate(self.spans):
            if span.start < second and (span.end is None or second < span.end):
                cut = [replace(span, end=second), replace(span, start=second)]
                self.spans[index : index + 1] = cut
                break
        before = sum(span.start < second for span in self.spans)
        return range(before, len(self.spans))

    def _pieces(self, span: Span) -> Iterator[tuple[Period, Period, Period]]:
        """The parts of a span by period; the whole period of each, and what counts as a whole one
        for amounts off.
        """
        anchor = quarter_hour_of(span.anchor)
        length: BillingPeriod = span.plan.content.billing_period
        cycle = Cycle(anchor, self._billing_anchor, self._time_zone, length)
        start = span.start
        assert span.end is not None
        while start < span.end:
            whole = whole_at(cycle, start)
            if self._billing_anchor is BillingAnchor.ANNIVERSARY and whole.start == anchor:
                whole = Period(span.anchor, whole.end)
            first = Period(max(whole.start, span.anchor), whole.end)
            piece = Period(start, min(whole.end, span.end))
            yield piece, whole, first
            start = piece.end


def _price(plan: Plan, quantity: int, piece: Period, whole: Period, first: Period) -> Fraction:
    content = plan.content
    share = Fraction(piece.seconds, whole.seconds)
    cost = Fraction(content.base_price) * quantity * share
    for price in content.metrics:
        cost += Fraction(price.limits.minimum or 0) * share
    for discount in content.discounts:
        cost -= Fraction(discount.amount or 0) * Fraction(piece.seconds, first.seconds)
    return max(cost, Fraction(content.limits.minimum or 0) * share)
