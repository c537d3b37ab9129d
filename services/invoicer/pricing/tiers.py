"""Tiers: what GRADUATED, VOLUME and STAIRSTEP are made of.

`up_to` is inclusive, and what is beyond it, however little, is in the next tier: with a first tier
up to 5, 5.001 reaches the second.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from services.invoicer.exact import ZERO, add, multiply, readable, subtract
from services.invoicer.pricing.parameters import Parameters
from services.kit.errors import FieldChecks
from services.kit.money import format_decimal

TIERS_MAX = 100


@dataclass(frozen=True, slots=True)
class Tier:
    """Units up to and with `up_to` (None: all that are left), their price, and a price once."""

    up_to: Decimal | None
    unit_price: Decimal
    flat_price: Decimal

    def cost(self, quantity: Decimal) -> Decimal:
        """quantity x unit price + flat price."""
        return add(multiply(quantity, self.unit_price), self.flat_price)

    def calculation(self, quantity: Decimal) -> str:
        """The words for cost(): "1,000 x 0.05 + 10", without what is no price."""
        terms = []
        if self.unit_price or not self.flat_price:
            terms.append(f"{readable(quantity)} x {format_decimal(self.unit_price)}")
        if self.flat_price:
            terms.append(format_decimal(self.flat_price))
        return " + ".join(terms)


@dataclass(frozen=True, slots=True)
class Entered:
    """A tier that a quantity has entered: its number from 1, and how much lies in it."""

    number: int
    tier: Tier
    quantity: Decimal


def entered(tiers: Sequence[Tier], quantity: Decimal) -> Iterator[Entered]:
    """The tiers that `quantity` has entered; the first is entered without any usage."""
    below = ZERO
    for number, tier in enumerate(tiers, start=1):
        if number > 1 and quantity <= below:
            return
        top = quantity if tier.up_to is None else min(quantity, tier.up_to)
        yield Entered(number, tier, subtract(top, below))
        below = top if tier.up_to is None else tier.up_to


def reached(tiers: Sequence[Tier], quantity: Decimal) -> Entered:
    """The last tier that `quantity` has entered, with the whole of it."""
    *_, last = entered(tiers, quantity)
    return Entered(last.number, last.tier, quantity)


def span(tiers: Sequence[Tier], number: int) -> str:
    """For people: "tier 2 (over 100, up to 200)"."""
    below = tiers[number - 2].up_to if number > 1 else None
    up_to = tiers[number - 1].up_to
    bounds = []
    if below is not None:
        bounds.append(f"over {readable(below)}")
    if up_to is not None:
        bounds.append(f"up to {readable(up_to)}")
    return f"tier {number} ({', '.join(bounds) or 'all'})"


def parse_tiers(
    parameters: Mapping[str, Any], field: str, checks: FieldChecks, *, unit_prices: bool = True
) -> tuple[Tier, ...]:
    """Takes `tiers`: `upTo` rises and is null in the last only, prices are decimals >= 0.

    Each tier has one of its prices or both; without `unit_prices` the flat one.
    """
    given = Parameters(parameters, field, checks, ["tiers"])
    entries = given.entries("tiers", ["upTo", "unitPrice", "flatPrice"], TIERS_MAX)
    tiers: list[Tier] = []
    for number, entry in enumerate(entries, start=1):
        up_to = entry.optional("upTo", digits_max=38)
        if number == len(entries):
            entry.require(up_to is None, "upTo", "must be null in the last tier")
        elif entry.require(up_to is not None, "upTo", "is required in each tier but the last"):
            previous = tiers[-1].up_to if tiers else None
            rises = previous is None or up_to is None or up_to > previous
            entry.require(rises, "upTo", "must be more than that of the tier before")
        unit_price, flat_price = entry.optional("unitPrice"), entry.optional("flatPrice")
        if unit_prices:
            some = unit_price is not None or flat_price is not None
            entry.require(some, "unitPrice", "is required, or flatPrice")
        else:
            entry.require(flat_price is not None, "flatPrice", "is required")
            entry.require(not unit_price, "unitPrice", "must be left out: a step has one price")
        tiers.append(Tier(up_to, unit_price or ZERO, flat_price or ZERO))
    return tuple(tiers)


def tier_parameters(tiers: Sequence[Tier], *, unit_prices: bool = True) -> dict[str, Any]:
    """What parse_tiers takes."""
    return {"tiers": [_tier_parameters(tier, unit_prices) for tier in tiers]}


def _tier_parameters(tier: Tier, unit_prices: bool) -> dict[str, Any]:
    up_to = None if tier.up_to is None else format_decimal(tier.up_to)
    prices = {"flatPrice": format_decimal(tier.flat_price)}
    if unit_prices:
        prices = {"unitPrice": format_decimal(tier.unit_price), **prices}
    return {"upTo": up_to, **prices}
