"""PACKAGE: a price for each started block of units."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Self

from services.invoicer.exact import multiply, readable, started
from services.invoicer.pricing.model import Rated
from services.invoicer.pricing.parameters import Parameters
from services.invoicer.pricing.usage import MetricUsage
from services.kit.errors import FieldChecks
from services.kit.money import format_decimal


@dataclass(frozen=True, slots=True)
class Package:
    """Units come in blocks of `size` (> 0); a block that is begun is charged as a whole."""

    size: Decimal
    price: Decimal
    name: ClassVar[str] = "PACKAGE"
    by_quantity: ClassVar[bool] = True

    @classmethod
    def parse(cls, parameters: Mapping[str, Any], field: str, checks: FieldChecks) -> Self:
        """Takes `packageSize`, a decimal > 0, and `packagePrice`, a decimal >= 0."""
        given = Parameters(parameters, field, checks, ["packageSize", "packagePrice"])
        size = given.required("packageSize", digits_max=38)
        if given.raw("packageSize") is not None:
            given.require(size > 0, "packageSize", "must be more than 0")
        return cls(size, given.required("packagePrice"))

    def parameters(self) -> dict[str, Any]:
        """What parse takes."""
        return {
            "packageSize": format_decimal(self.size),
            "packagePrice": format_decimal(self.price),
        }

    def rate(self, usage: MetricUsage) -> Rated:
        """Started packages x price; no package for no usage."""
        count = started(usage.quantity, self.size)
        amount = multiply(count, self.price)
        quotient = f"{readable(usage.quantity)} / {readable(self.size)}"
        reckoning = f"{readable(count)} x {format_decimal(self.price)}"
        steps = (
            f"{quotient}, rounded up to whole packages: {readable(count)}",
            f"{reckoning} = {readable(amount)}",
        )
        return Rated(amount, f"{reckoning} (packages of {readable(self.size)})", steps)
