"""The pricing models by name."""

from services.invoicer.pricing.model import PricingModel
from services.invoicer.pricing.per_unit import PerUnit

_ALL: tuple[type[PricingModel], ...] = (PerUnit,)

PRICING_MODELS: dict[str, type[PricingModel]] = {model.name: model for model in _ALL}
