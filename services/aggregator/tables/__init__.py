"""The tables of aggregator, by what they hold; migrations make them, a test compares both."""

from services.aggregator.tables.base import metadata
from services.aggregator.tables.metrics import dimension_values, metric_rebuilds, metrics, series
from services.aggregator.tables.quotas import (
    plan_limits,
    quota_changes,
    quota_reservations,
    quota_thresholds_reached,
    quota_touches,
    quotas,
)
from services.aggregator.tables.state import (
    audit_outbox,
    billing_outbox,
    customers_seen,
    fold_state,
    inbox,
    outbox,
    reconciliation_differences,
    reconciliation_state,
)
from services.aggregator.tables.usage import (
    amount_counts,
    bucket_recounts,
    rollup_state,
    unique_values,
    usage_buckets,
    usage_rollups,
)
from services.kit.idempotency import idempotency_table

idempotency_keys = idempotency_table(metadata)

__all__ = [
    "amount_counts",
    "audit_outbox",
    "billing_outbox",
    "bucket_recounts",
    "customers_seen",
    "dimension_values",
    "fold_state",
    "idempotency_keys",
    "inbox",
    "metadata",
    "metric_rebuilds",
    "metrics",
    "outbox",
    "plan_limits",
    "quota_changes",
    "quota_reservations",
    "quota_thresholds_reached",
    "quota_touches",
    "quotas",
    "reconciliation_differences",
    "reconciliation_state",
    "rollup_state",
    "series",
    "unique_values",
    "usage_buckets",
    "usage_rollups",
]
