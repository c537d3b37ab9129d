"""What a plan would cost: the same arithmetic as an invoice's, without anything stored. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

from services.invoicer.adjustments import Terms, adjustment_lines
from services.invoicer.domain import BasePriceTiming, InvoiceLine, PlanContent
from services.invoicer.exact import ZERO, total
from services.invoicer.lines import base_line, setup_line, usage_line
from services.invoicer.periods import Period
from services.invoicer.pricing.usage import MetricUsage

# A whole period costs the same whenever it is.
_ANY = Period(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
_NOTHING = MetricUsage(ZERO, event_count=0, events=())


@dataclass(frozen=True, slots=True)
class Quote:
    """Lines and their exact sum."""

    currency: str
    amount: Decimal
    lines: tuple[InvoiceLine, ...]


def quote(plan: PlanContent, usages: Mapping[str, MetricUsage]) -> Quote:
    """What `plan` costs in a whole first period for `usages`, none for a metric not in it."""
    lines = [setup_line(plan, _ANY)] if plan.setup_fee > 0 else []
    # In advance or not, it costs the same.
    plan = replace(plan, base_price_timing=BasePriceTiming.IN_ARREARS)
    lines.append(base_line(plan, _ANY, _ANY, discounts=plan.discounts))
    for price in plan.metrics:
        usage = usages.get(price.metric, _NOTHING)
        lines.append(usage_line(price, usage, plan.currency, _ANY, discounts=plan.discounts))
    terms = Terms(_ANY, _ANY, plan.discounts, plan.limits)
    lines += list(adjustment_lines(terms, lines, (), plan.currency))
    return Quote(plan.currency, total(line.amount for line in lines), tuple(lines))
