"""What every pricing model is."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Protocol, Self

from services.kit.errors import FieldChecks


@dataclass(frozen=True, slots=True)
class Rated:
    """What a quantity costs, before rounding, and how that comes about.

    `formula` is short, for a line's description; `steps` can be followed with a pocket calculator.
    `unit_price` is None where there is not one price of a unit.
    """

    amount: Decimal
    formula: str
    steps: tuple[str, ...]
    unit_price: Decimal | None


class PricingModel(Protocol):
    """A pricing model with its parameters. It never changes once made."""

    name: ClassVar[str]

    @classmethod
    def parse(cls, parameters: Mapping[str, Any], field: str, checks: FieldChecks) -> Self:
        """Read parameters as HTTP and `parameters()` have them; notes problems under `field`."""

    def parameters(self) -> dict[str, Any]:
        """The parameters as JSON values, decimals as strings: what is stored."""

    def rate(self, quantity: Decimal) -> Rated:
        """What `quantity` units cost (>= 0, included units already taken off)."""
