"""PER_UNIT: quantity times unit price."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Self

from services.invoicer.exact import multiply, readable
from services.invoicer.pricing.model import Rated
from services.kit.errors import FieldChecks
from services.kit.money import format_decimal

# With a quantity's 38 digits this makes 58: within the 60 that are exact.
UNIT_PRICE_DIGITS_MAX = 20
UNIT_PRICE_SCALE_MAX = 12


@dataclass(frozen=True, slots=True)
class PerUnit:
    """Each unit costs the same."""

    unit_price: Decimal
    name: ClassVar[str] = "PER_UNIT"

    @classmethod
    def parse(cls, parameters: Mapping[str, Any], field: str, checks: FieldChecks) -> Self:
        """Takes `unitPrice`: a decimal >= 0."""
        text = parameters.get("unitPrice", "")
        where = f"{field}.unitPrice"
        if not checks.require(text != "", where, "is required"):
            return cls(Decimal(0))
        price = checks.decimal(
            text, where, digits_max=UNIT_PRICE_DIGITS_MAX, scale_max=UNIT_PRICE_SCALE_MAX
        )
        return cls(price)

    def parameters(self) -> dict[str, Any]:
        """What parse takes."""
        return {"unitPrice": format_decimal(self.unit_price)}

    def rate(self, quantity: Decimal) -> Rated:
        """quantity x unit price."""
        amount = multiply(quantity, self.unit_price)
        formula = f"{readable(quantity)} x {format_decimal(self.unit_price)}"
        return Rated(amount, formula, (f"{formula} = {readable(amount)}",), self.unit_price)
