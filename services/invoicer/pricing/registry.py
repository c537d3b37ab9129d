"""The pricing models by name."""

from services.invoicer.pricing.dimensional import Dimensional
from services.invoicer.pricing.graduated import Graduated
from services.invoicer.pricing.model import PricingModel
from services.invoicer.pricing.package import Package
from services.invoicer.pricing.per_unit import PerUnit
from services.invoicer.pricing.percentage import Percentage
from services.invoicer.pricing.stairstep import Stairstep
from services.invoicer.pricing.volume import Volume

_ALL: tuple[type[PricingModel], ...] = (
    PerUnit,
    Graduated,
    Volume,
    Stairstep,
    Package,
    Percentage,
    Dimensional,
)

PRICING_MODELS: dict[str, type[PricingModel]] = {model.name: model for model in _ALL}
