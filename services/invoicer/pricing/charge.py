"""What a metric's usage costs: included units come off first, then the model, then one rounding."""

from dataclasses import dataclass
from decimal import Decimal

from services.invoicer.exact import ZERO, readable, subtract
from services.invoicer.pricing.model import PricingModel
from services.kit.money import format_money, round_money


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
    model: PricingModel, included_units: Decimal, quantity: Decimal, currency: str
) -> Charge:
    """The charge for `quantity` units of which the first `included_units` cost nothing."""
    free = max(min(quantity, included_units), ZERO)
    billable = max(subtract(quantity, free), ZERO)
    rated = model.rate(billable)
    amount = round_money(rated.amount, currency)
    steps = rated.steps
    if included_units > 0:
        first = f"{readable(quantity)} - {readable(free)} included = {readable(billable)}"
        steps = (first, *steps)
    if amount != rated.amount:
        steps = (*steps, f"rounded half up: {format_money(amount, currency)} {currency}")
    return Charge(quantity, free, rated.unit_price, amount, rated.formula, steps)
