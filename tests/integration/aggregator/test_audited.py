"""What is done to metrics and quotas is told to the audit log, with who did it."""

import json
from typing import Any

from sqlalchemy import text

from services.aggregator.domain import NewMetric
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.quotas.domain import QuotaSettings
from services.aggregator.rebuilds.domain import MetricChange
from services.aggregator.watermark import WatermarkSource
from services.kit import audit
from services.kit.database import Database, TenantKey
from tests.integration.aggregator.quota_setting import QuotaReplica
from tests.integration.aggregator.sending import Event, batch


async def told(database: Database, tenant: TenantKey) -> list[tuple[str, str, str, Any]]:
    """(action, target, key, details) of everything told, in order."""
    async with database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT payload FROM audit_outbox ORDER BY create_time, message_id")
        )
        events = [audit.from_bytes(payload) for payload in rows.scalars()]
    return [
        (event.action, event.target_id, event.key_id, json.loads(event.details_json))
        for event in events
        if event.tenant == tenant
    ]


async def test_all_that_is_done_to_a_metric_is_told_once(
    database: Database, metrics: Metrics, folder: Folder, tenant: TenantKey
) -> None:
    # It defines itself, which nobody did, and takes a definition while its events are counted anew.
    await folder.apply([batch(tenant, Event("USED", "1"))])
    for _ in range(2):
        await metrics.create(tenant, NewMetric("USED", dimensions=("model",)), "key_1")
    renamed = MetricChange(unit="calls")
    for _ in range(2):
        await metrics.update(tenant, "USED", renamed, by_key="key_2")
        await metrics.archive(tenant, "USED", archived=True, by_key="mem_1")
    await metrics.archive(tenant, "USED", archived=False)
    created = {
        "key": "USED",
        "name": "",
        "unit": "",
        "aggregation": "SUM",
        "dimensions": ["model"],
        "uniqueBy": "",
        "percentiles": False,
    }
    changed = {"before": {"unit": ""}, "after": {"unit": "calls"}}
    assert await told(database, tenant) == [
        ("metric.created", "USED", "key_1", created),
        ("metric.updated", "USED", "key_2", changed),
        ("metric.archived", "USED", "mem_1", {}),
        ("metric.unarchived", "USED", "", {}),
    ]


async def test_all_that_is_done_to_a_quota_is_told_once(
    database: Database, metrics: Metrics, watermark: WatermarkSource, tenant: TenantKey
) -> None:
    await metrics.create(tenant, NewMetric("A"))
    quotas = QuotaReplica.on(database, watermark, tenant).quotas
    settings = QuotaSettings("A", "user_1")
    for limit in ("100", "100", "0.5"):
        quota, _ = await quotas.set(tenant, settings, limit, by_key=f"key_{limit}")
    await quotas.delete(tenant, quota.quota_id, "key_4")
    shown = {
        "metric": "A",
        "customerId": "user_1",
        "period": "MONTH",
        "limit": "100",
        "enforcement": "HARD",
        "timezone": "",
        "thresholds": ["50%", "80%", "100%"],
    }
    changed = {"before": {"limit": "100"}, "after": {"limit": "0.5"}}
    assert (await told(database, tenant))[1:] == [
        ("quota.created", quota.quota_id, "key_100", shown),
        ("quota.updated", quota.quota_id, "key_0.5", changed),
        ("quota.deleted", quota.quota_id, "key_4", shown | {"limit": "0.5"}),
    ]
