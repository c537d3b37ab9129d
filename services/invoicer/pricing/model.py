"""What every pricing model is."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Protocol, Self

from services.invoicer.pricing.usage import MetricUsage
from services.kit.errors import FieldChecks


@dataclass(frozen=True, slots=True)
class Rated:
    """What usage costs, before rounding, and how that comes about.

    `formula` is short, for a line's description; `steps` can be followed with a pocket calculator:
    "label: 2 x 0.5 + 1 = 2". `unit_price` is None where there is not one price of a unit.
    """

    amount: Decimal
    formula: str
    steps: tuple[str, ...]
    unit_price: Decimal | None = None


class PricingModel(Protocol):
    """A pricing model with its parameters. It never changes once made.

    `by_quantity`: whether the same quantity always costs the same.
    """

    name: ClassVar[str]
    by_quantity: ClassVar[bool]

    @classmethod
    def parse(cls, parameters: Mapping[str, Any], field: str, checks: FieldChecks) -> Self:
        """Read parameters as HTTP and `parameters()` have them; notes problems under `field`."""

    def parameters(self) -> dict[str, Any]:
        """The parameters as JSON values, decimals as strings: what is stored."""

    def rate(self, usage: MetricUsage) -> Rated:
        """What `usage` costs (quantity >= 0, included units already taken off)."""
