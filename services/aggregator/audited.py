"""What the audit log is told of metrics and quotas."""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator.domain import Metric
from services.aggregator.quotas.domain import Quota
from services.aggregator.rebuilds.domain import RUNNING
from services.aggregator.tables import audit_outbox
from services.kit.audit import add_audit_event, audit_event, changes
from services.kit.database import TenantKey
from services.kit.money import format_decimal


async def note(
    connection: AsyncConnection,
    tenant: TenantKey,
    action: str,
    target_id: str,
    by_key: str,
    details: Mapping[str, object],
) -> None:
    """Tell the audit log what was done, when the caller's transaction commits.

    `by_key` is the API key or member who did it, "" for UsageFlow itself.
    """
    event = audit_event(tenant, action, target_id=target_id, key_id=by_key, details=details)
    await add_audit_event(connection, audit_outbox, event)


async def note_metric(
    connection: AsyncConnection, before: Metric | None, after: Metric, by_key: str
) -> None:
    """A metric was defined or changed; nothing is told when nothing differs.

    What a metric is being built as counts as what it is: nobody decides anything later.
    """
    tenant, key = after.tenant, after.definition.key
    if before is None or not (before.defined or before.rebuild):
        await note(connection, tenant, "metric.created", key, by_key, shown_metric(after))
    elif details := changes(shown_metric(before), shown_metric(after)):
        await note(connection, tenant, "metric.updated", key, by_key, details)


async def note_quota(
    connection: AsyncConnection,
    tenant: TenantKey,
    before: Quota | None,
    after: Quota | None,
    by_key: str,
) -> None:
    """A quota was made, set anew, or taken away (`after` None)."""
    quota = after or before
    assert quota is not None
    if before is None or after is None:
        action, details = "created" if after else "deleted", shown_quota(quota)
    elif differing := changes(shown_quota(before), shown_quota(after)):
        action, details = "updated", differing
    else:
        return
    await note(connection, tenant, f"quota.{action}", quota.quota_id, by_key, details)


def shown_metric(metric: Metric) -> dict[str, object]:
    """A metric as the audit log shows it, with the names of the HTTP contract."""
    rebuild = metric.rebuild
    building = rebuild.new if rebuild is not None and rebuild.state == RUNNING else None
    definition = building or metric.definition
    return {
        "key": definition.key,
        "name": definition.name,
        "unit": definition.unit,
        "aggregation": definition.aggregation,
        "dimensions": list(definition.dimensions),
        "uniqueBy": definition.unique_by,
        "percentiles": definition.percentiles,
    }


def shown_quota(quota: Quota) -> dict[str, object]:
    """A quota, likewise."""
    settings = quota.settings
    return {
        "metric": settings.metric,
        "customerId": settings.customer_id,
        "period": settings.period,
        "limit": None if settings.limit is None else format_decimal(settings.limit),
        "enforcement": settings.enforcement,
        "timezone": settings.time_zone,
        "thresholds": list(settings.thresholds),
    }
