"""DIMENSIONAL: the price of a unit depends on the values of an event's dimensions."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Self

from services.invoicer.exact import multiply, readable, total
from services.invoicer.pricing.model import Rated
from services.invoicer.pricing.parameters import Parameters
from services.invoicer.pricing.usage import MetricUsage, Part
from services.kit.errors import FieldChecks
from services.kit.money import format_decimal

PRICES_MAX = 100
DIMENSIONS_MAX = 8
VALUE_CHARS_MAX = 255
# What a message takes for a text besides the text itself.
FRAMING_BYTES = 8
DEFAULT_LABEL = "other"


@dataclass(frozen=True, slots=True)
class DimensionPrice:
    """The price of units whose dimensions have all these values."""

    match: tuple[tuple[str, str], ...]
    unit_price: Decimal

    @property
    def label(self) -> str:
        """For people: "model=gpt-4, region=eu"."""
        return ", ".join(f"{name}={value}" for name, value in self.match)


@dataclass(frozen=True, slots=True)
class Dimensional:
    """Of the prices that fit, the one with the most dimensions counts, then the first.

    Where none fits, `unit_price` does. A dimension that an event lacks has the value "".
    """

    prices: tuple[DimensionPrice, ...]
    unit_price: Decimal
    name: ClassVar[str] = "DIMENSIONAL"
    by_quantity: ClassVar[bool] = False

    @classmethod
    def parse(cls, parameters: Mapping[str, Any], field: str, checks: FieldChecks) -> Self:
        """Takes `prices`, a list of {match, unitPrice}, and the `unitPrice` of all the rest."""
        given = Parameters(parameters, field, checks, ["prices", "unitPrice"])
        prices: list[DimensionPrice] = []
        for entry in given.entries("prices", ["match", "unitPrice"], PRICES_MAX):
            match = _parse_match(entry)
            once = not match or all(match != price.match for price in prices)
            entry.require(once, "match", "must not come twice")
            prices.append(DimensionPrice(match, entry.required("unitPrice")))
        return cls(tuple(prices), given.required("unitPrice"))

    def parameters(self) -> dict[str, Any]:
        """What parse takes."""
        prices = [
            {"match": dict(price.match), "unitPrice": format_decimal(price.unit_price)}
            for price in self.prices
        ]
        return {"prices": prices, "unitPrice": format_decimal(self.unit_price)}

    @property
    def match_bytes(self) -> int:
        """About how long the matches are in a question to aggregator."""
        pairs = [pair for price in self.prices for pair in price.match]
        return sum(len(text.encode()) + FRAMING_BYTES for pair in pairs for text in pair)

    @property
    def tried(self) -> tuple[DimensionPrice, ...]:
        """The prices in the order in which they are tried: the first that fits counts."""
        return tuple(sorted(self.prices, key=lambda price: -len(price.match)))

    def parts(self, quantities: list[Decimal]) -> tuple[Part, ...]:
        """Usage by price: a quantity for each of tried(), and the rest."""
        labels = [price.label for price in self.tried] + [DEFAULT_LABEL]
        return tuple(Part(*pair) for pair in zip(labels, quantities, strict=True))

    def part_of(self, dimensions: Mapping[str, str]) -> int:
        """The index of what has these dimensions in parts()."""
        for index, price in enumerate(self.tried):
            if all(dimensions.get(name, "") == value for name, value in price.match):
                return index
        return len(self.prices)

    def rate(self, usage: MetricUsage) -> Rated:
        """The sum over the prices; where nobody knows the dimensions, the price of the rest."""
        parts = usage.parts
        if parts is None:
            parts = (Part(DEFAULT_LABEL, usage.quantity),)
        named = [price.unit_price for price in self.tried]
        prices = [*named[: len(parts) - 1], self.unit_price]
        used = [pair for pair in zip(parts, prices, strict=True) if pair[0].quantity]
        used = used or [(parts[-1], self.unit_price)]
        amounts = [multiply(part.quantity, price) for part, price in used]
        result = total(amounts)
        steps = [
            f"{part.label}: {readable(part.quantity)} x {format_decimal(price)}"
            f" = {readable(amount)}"
            for (part, price), amount in zip(used, amounts, strict=True)
        ]
        if len(used) > 1:
            steps.append(f"{' + '.join(map(readable, amounts))} = {readable(result)}")
            return Rated(result, f"at {len(used)} prices", tuple(steps))
        ((part, price),) = used
        formula = f"{readable(part.quantity)} x {format_decimal(price)}"
        return Rated(result, formula, tuple(steps), price)


def _parse_match(entry: Parameters) -> tuple[tuple[str, str], ...]:
    match = entry.raw("match") or {}
    few = 1 <= len(match) <= DIMENSIONS_MAX
    entry.require(few, "match", f"must name 1 to {DIMENSIONS_MAX} dimensions")
    short = all(len(value) <= VALUE_CHARS_MAX and "\0" not in value for value in match.values())
    entry.require(short, "match", f"values must have at most {VALUE_CHARS_MAX} characters")
    return tuple(sorted(match.items()))
