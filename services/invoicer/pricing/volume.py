"""VOLUME: all units cost what the tier says that their number reaches."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from services.invoicer.exact import readable
from services.invoicer.pricing.model import Rated
from services.invoicer.pricing.tiers import Tier, parse_tiers, reached, span, tier_parameters
from services.invoicer.pricing.usage import MetricUsage
from services.kit.errors import FieldChecks


@dataclass(frozen=True, slots=True)
class Volume:
    """The tier that is reached has the price of every unit, and its flat price once.

    More usage can cost less: 101 units of the second tier less than 100 of the first.
    """

    tiers: tuple[Tier, ...]
    name: ClassVar[str] = "VOLUME"
    by_quantity: ClassVar[bool] = True

    @classmethod
    def parse(cls, parameters: Mapping[str, Any], field: str, checks: FieldChecks) -> Self:
        """Takes `tiers`: a list of {upTo, unitPrice, flatPrice}."""
        return cls(parse_tiers(parameters, field, checks))

    def parameters(self) -> dict[str, Any]:
        """What parse takes."""
        return tier_parameters(self.tiers)

    def rate(self, usage: MetricUsage) -> Rated:
        """quantity x unit price + flat price, both of the tier that is reached."""
        found = reached(self.tiers, usage.quantity)
        amount = found.tier.cost(usage.quantity)
        formula = found.tier.calculation(usage.quantity)
        step = f"{span(self.tiers, found.number)}: {formula} = {readable(amount)}"
        return Rated(amount, formula, (step,), found.tier.unit_price)
