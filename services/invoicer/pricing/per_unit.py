"""PER_UNIT: quantity times unit price."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Self

from services.invoicer.exact import multiply, readable
from services.invoicer.pricing.model import Rated
from services.invoicer.pricing.parameters import Parameters
from services.invoicer.pricing.usage import MetricUsage
from services.kit.errors import FieldChecks
from services.kit.money import format_decimal


@dataclass(frozen=True, slots=True)
class PerUnit:
    """Each unit costs the same."""

    unit_price: Decimal
    name: ClassVar[str] = "PER_UNIT"
    by_quantity: ClassVar[bool] = True

    @classmethod
    def parse(cls, parameters: Mapping[str, Any], field: str, checks: FieldChecks) -> Self:
        """Takes `unitPrice`: a decimal >= 0."""
        return cls(Parameters(parameters, field, checks, ["unitPrice"]).required("unitPrice"))

    def parameters(self) -> dict[str, Any]:
        """What parse takes."""
        return {"unitPrice": format_decimal(self.unit_price)}

    def rate(self, usage: MetricUsage) -> Rated:
        """quantity x unit price."""
        amount = multiply(usage.quantity, self.unit_price)
        formula = f"{readable(usage.quantity)} x {format_decimal(self.unit_price)}"
        return Rated(amount, formula, (f"{formula} = {readable(amount)}",), self.unit_price)
