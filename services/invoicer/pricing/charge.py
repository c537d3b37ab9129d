"""What a metric's usage costs: included units come off first, then the model, discounts in
percent, the limits, and one rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from services.invoicer.exact import HUNDRED, ZERO, less_percent, readable, subtract
from services.invoicer.pricing.model import PricingModel
from services.invoicer.pricing.usage import MetricUsage, take_off
from services.kit.money import format_decimal, format_money, round_money


@dataclass(frozen=True, slots=True)
class Limits:
    """What a line costs at least, also without usage, and at most; None: no limit."""

    minimum: Decimal | None = None
    maximum: Decimal | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Charge:
    """An amount in the currency's minor units, and how it came about.

    `included_units` is how many of `quantity` cost nothing.
    """

    quantity: Decimal
    included_units: Decimal
    unit_price: Decimal | None
    amount: Decimal
    formula: str
    steps: tuple[str, ...]


def charge(
    model: PricingModel,
    included_units: Decimal,
    usage: MetricUsage,
    currency: str,
    limits: Limits = NO_LIMITS,
    *,
    percents: Sequence[Decimal] = (),
    period_over: bool = True,
) -> Charge:
    """The charge for `usage` of which the first `included_units` cost nothing.

    `percents` are discounts, one after the other; they come before the maximum.
    While the period is not over there is no minimum. A bill inside of a period is the charge so
    far less what was billed of it, so that all bills of a period sum to its charge.
    """
    billable, steps = take_off(usage, included_units)
    rated = model.rate(billable)
    steps += rated.steps
    formula, exact = rated.formula, rated.amount
    for rate in percents:
        left = less_percent(exact, rate)
        steps += (f"{_discount_words(exact, rate)} = {readable(left)}",)
        formula += f", less {format_decimal(rate)} %"
        exact = left
    if limits.maximum is not None and exact > limits.maximum:
        exact = limits.maximum
        formula += f", at most {readable(exact)}"
        steps += (f"more than the maximum: {readable(exact)}",)
    if period_over and limits.minimum is not None and exact < limits.minimum:
        exact = limits.minimum
        formula += f", at least {readable(exact)}"
        steps += (f"less than the minimum: {readable(exact)}",)
    amount = round_money(exact, currency)
    if amount != exact:
        steps += (f"rounded half up: {format_money(amount, currency)} {currency}",)
    return Charge(
        quantity=usage.quantity,
        included_units=included_of(usage.quantity, included_units),
        unit_price=rated.unit_price,
        amount=amount,
        formula=formula,
        steps=steps,
    )


def _discount_words(amount: Decimal, rate: Decimal) -> str:
    rest = format_decimal(subtract(HUNDRED, rate))
    return f"discount of {format_decimal(rate)} %: {readable(amount)} x {rest} / 100"


def included_of(quantity: Decimal, included_units: Decimal) -> Decimal:
    """How many of `quantity` units cost nothing."""
    return max(min(quantity, included_units), ZERO)
