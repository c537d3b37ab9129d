"""GRADUATED: each unit costs what its tier says, and each tier entered its flat price."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from services.invoicer.exact import readable, total
from services.invoicer.pricing.model import Rated
from services.invoicer.pricing.tiers import Tier, entered, parse_tiers, span, tier_parameters
from services.invoicer.pricing.usage import MetricUsage
from services.kit.errors import FieldChecks


@dataclass(frozen=True, slots=True)
class Graduated:
    """The tiers are filled one after the other."""

    tiers: tuple[Tier, ...]
    name: ClassVar[str] = "GRADUATED"
    by_quantity: ClassVar[bool] = True

    @classmethod
    def parse(cls, parameters: Mapping[str, Any], field: str, checks: FieldChecks) -> Self:
        """Takes `tiers`: a list of {upTo, unitPrice, flatPrice}."""
        return cls(parse_tiers(parameters, field, checks))

    def parameters(self) -> dict[str, Any]:
        """What parse takes."""
        return tier_parameters(self.tiers)

    def rate(self, usage: MetricUsage) -> Rated:
        """The sum of what the units in each tier cost there."""
        used = list(entered(self.tiers, usage.quantity))
        costs = [each.tier.cost(each.quantity) for each in used]
        amount = total(costs)
        steps = [
            f"{span(self.tiers, each.number)}: {each.tier.calculation(each.quantity)}"
            f" = {readable(cost)}"
            for each, cost in zip(used, costs, strict=True)
        ]
        if len(used) == 1:
            return Rated(amount, used[0].tier.calculation(usage.quantity), tuple(steps))
        steps.append(f"{' + '.join(map(readable, costs))} = {readable(amount)}")
        return Rated(amount, f"graduated over {len(used)} tiers", tuple(steps))
