"""What a plan would cost: the same arithmetic as an invoice's, without anything stored. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from services.invoicer.domain import InvoiceLine, PlanContent
from services.invoicer.exact import ZERO, total
from services.invoicer.lines import MetricUsage, base_line, usage_line
from services.invoicer.periods import Period

# A whole period costs the same whenever it is.
_ANY = Period(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Quote:
    """Lines and their exact sum."""

    currency: str
    amount: Decimal
    lines: tuple[InvoiceLine, ...]


def quote(plan: PlanContent, quantities: Mapping[str, Decimal]) -> Quote:
    """What `plan` costs for `quantities` (0 for a metric that is not in it) in a whole period."""
    lines = [base_line(plan, _ANY, _ANY)]
    for price in plan.metrics:
        usage = MetricUsage(quantities.get(price.metric, ZERO))
        lines.append(usage_line(price, usage, plan.currency, _ANY))
    return Quote(plan.currency, total(line.amount for line in lines), tuple(lines))
