"""What usage costs by the words of the plans, with Fractions and code of its own. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from cli.auditing.invoices.money import fraction, rounded, total

ZERO = Fraction(0)


@dataclass(frozen=True, slots=True)
class Used:
    """A metric's usage. `parts`: of DIMENSIONAL, the quantity at each of tried() and the rest.

    `events`: where the price depends on each, their amounts as they happened.
    """

    quantity: Fraction
    event_count: int
    parts: tuple[Fraction, ...] = ()
    events: tuple[Fraction, ...] = ()


def tried(parameters: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The prices of DIMENSIONAL in the order in which the first that fits counts."""
    return sorted(parameters["prices"], key=lambda price: -len(price["match"]))


def price_of(
    price: Mapping[str, Any],
    used: Used,
    currency: str,
    percents: Sequence[Fraction],
    shares: Sequence[tuple[Fraction, Fraction]],
) -> Fraction:
    """What a plan's price asks for usage: included units first, then the model, discounts, the
    maximum, the minimum, one rounding. `shares`: how much of its whole is left when each part of a
    period begins, and when it ends.
    """
    free = max(min(used.quantity, fraction(price["included_units"])), ZERO)
    cost = _MODELS[price["model"]](price["parameters"], _without(used, free))
    for percent in percents:
        cost = cost * (100 - percent) / 100
    if price["maximum"] is not None:
        cost = min(cost, fraction(price["maximum"]))
    if price["minimum"] is not None:
        least = fraction(price["minimum"])
        cost = max(cost, total(part_of(least, share, currency) for share in shares))
    return rounded(cost, currency)


def part_of(amount: Fraction, share: tuple[Fraction, Fraction], currency: str) -> Fraction:
    """A part's share: what is left at its start less what is left at its end, each rounded."""
    if share[0] == 1 and share[1] == 0:
        return amount
    return rounded(amount * share[0], currency) - rounded(amount * share[1], currency)


def depends_on_events(price: Mapping[str, Any]) -> bool:
    """Whether the sum and the number of the events do not tell what they cost."""
    named = ("freeEvents", "minPerEvent", "maxPerEvent")
    return price["model"] == "PERCENTAGE" and any(name in price["parameters"] for name in named)


def _without(used: Used, free: Fraction) -> Used:
    parts, events = _taken(used.parts, free), _taken(used.events, free)
    return Used(used.quantity - free, used.event_count, parts, events)


def _taken(amounts: Sequence[Fraction], free: Fraction) -> tuple[Fraction, ...]:
    """The amounts when the first `free` of them have come off."""
    left = []
    for amount in amounts:
        off = min(amount, free)
        free -= off
        left.append(amount - off)
    return tuple(left)


def _per_unit(parameters: Mapping[str, Any], used: Used) -> Fraction:
    return used.quantity * fraction(parameters["unitPrice"])


def _tiers(parameters: Mapping[str, Any]) -> list[tuple[Fraction, Fraction | None, Any]]:
    """(over, up to, tier): a quantity is in the tier when it is over the one and not the other."""
    found, over = [], ZERO
    for tier in parameters["tiers"]:
        up_to = None if tier["upTo"] is None else fraction(tier["upTo"])
        found.append((over, up_to, tier))
        over = over if up_to is None else up_to
    return found


def _graduated(parameters: Mapping[str, Any], used: Used) -> Fraction:
    cost = ZERO
    for number, (over, up_to, tier) in enumerate(_tiers(parameters)):
        if number and used.quantity <= over:
            break
        top = used.quantity if up_to is None else min(used.quantity, up_to)
        cost += (top - over) * fraction(tier.get("unitPrice")) + fraction(tier.get("flatPrice"))
    return cost


def _reached(parameters: Mapping[str, Any], used: Used) -> Any:
    tiers = _tiers(parameters)
    return next(tier for _, up_to, tier in tiers if up_to is None or used.quantity <= up_to)


def _volume(parameters: Mapping[str, Any], used: Used) -> Fraction:
    tier = _reached(parameters, used)
    return used.quantity * fraction(tier.get("unitPrice")) + fraction(tier.get("flatPrice"))


def _stairstep(parameters: Mapping[str, Any], used: Used) -> Fraction:
    return fraction(_reached(parameters, used)["flatPrice"])


def _package(parameters: Mapping[str, Any], used: Used) -> Fraction:
    packages = -(-used.quantity // fraction(parameters["packageSize"]))
    return packages * fraction(parameters["packagePrice"])


def _each_percentage(parameters: Mapping[str, Any], used: Used) -> Fraction:
    cost, free = ZERO, fraction(parameters.get("freeAmount"))
    least, most = (parameters.get(name) for name in ("minPerEvent", "maxPerEvent"))
    for amount in used.events[int(parameters.get("freeEvents", "0")) :]:
        charged = max(amount - free, ZERO)
        free = max(free - amount, ZERO)
        price = charged * fraction(parameters["rate"]) / 100
        price += fraction(parameters.get("fixedPerEvent"))
        if least is not None and charged > 0:
            price = max(price, fraction(least))
        cost += price if most is None else min(price, fraction(most))
    return cost


def _percentage(parameters: Mapping[str, Any], used: Used) -> Fraction:
    if depends_on_events({"model": "PERCENTAGE", "parameters": parameters}):
        return _each_percentage(parameters, used)
    charged = max(used.quantity - fraction(parameters.get("freeAmount")), ZERO)
    by_event = used.event_count * fraction(parameters.get("fixedPerEvent"))
    return charged * fraction(parameters["rate"]) / 100 + by_event


def _dimensional(parameters: Mapping[str, Any], used: Used) -> Fraction:
    prices = [fraction(price["unitPrice"]) for price in tried(parameters)]
    prices.append(fraction(parameters["unitPrice"]))
    return total(part * price for part, price in zip(used.parts, prices, strict=True))


_MODELS = {
    "PER_UNIT": _per_unit,
    "GRADUATED": _graduated,
    "VOLUME": _volume,
    "STAIRSTEP": _stairstep,
    "PACKAGE": _package,
    "PERCENTAGE": _percentage,
    "DIMENSIONAL": _dimensional,
}
