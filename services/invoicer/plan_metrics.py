"""A plan prices metrics that there are: of a typo nothing would ever be billed."""

from collections.abc import Mapping

from services.invoicer.checks import PLAN_METRICS_MAX, PlanInput
from services.kit.auth import MODE_NUMBERS
from services.kit.database import TenantKey
from services.kit.events import is_metric
from services.kit.metrics import MetricsSource

_UNKNOWN = "is unknown: define it with POST /api/metrics, or send its first event"
_UNDEFINED = (
    "must be a metric that is defined: the organization has strict metrics; define it with "
    "POST /api/metrics"
)
_ARCHIVED = "is archived: unarchive it first"


async def unpriceable(
    source: MetricsSource, tenant: TenantKey, given: PlanInput, *, strict: bool
) -> Mapping[str, str]:
    """Of the plan's metrics those that can't be priced, and why. UnavailableError.

    A metric is there once somebody has defined it or its first event is counted; with `strict`
    metrics somebody must have.
    """
    # What is no metric's key is refused as such.
    keys = {price.metric for price in given.metrics[:PLAN_METRICS_MAX] if is_metric(price.metric)}
    if not keys:
        return {}
    found = await source.find(tenant.organization_id, MODE_NUMBERS[tenant.mode], keys)
    return {
        **dict.fromkeys(keys - found.defined - found.self_defined, _UNKNOWN),
        **(dict.fromkeys(keys - found.defined, _UNDEFINED) if strict else {}),
        **dict.fromkeys(found.archived, _ARCHIVED),
    }
