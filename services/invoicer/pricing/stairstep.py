"""STAIRSTEP: a flat price that depends on the tier which the number of units reaches."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from services.invoicer.exact import readable
from services.invoicer.pricing.model import Rated
from services.invoicer.pricing.tiers import Tier, parse_tiers, reached, span, tier_parameters
from services.invoicer.pricing.usage import MetricUsage
from services.kit.errors import FieldChecks


@dataclass(frozen=True, slots=True)
class Stairstep:
    """The tier that is reached has the price of all units together; the first without usage."""

    tiers: tuple[Tier, ...]
    name: ClassVar[str] = "STAIRSTEP"
    by_quantity: ClassVar[bool] = True

    @classmethod
    def parse(cls, parameters: Mapping[str, Any], field: str, checks: FieldChecks) -> Self:
        """Takes `tiers`: a list of {upTo, flatPrice}."""
        return cls(parse_tiers(parameters, field, checks, unit_prices=False))

    def parameters(self) -> dict[str, Any]:
        """What parse takes."""
        return tier_parameters(self.tiers, unit_prices=False)

    def rate(self, usage: MetricUsage) -> Rated:
        """The flat price of the tier that is reached."""
        found = reached(self.tiers, usage.quantity)
        amount = found.tier.flat_price
        where = span(self.tiers, found.number)
        return Rated(amount, where, (f"{where}: {readable(amount)}",))
