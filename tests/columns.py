"""Events by column, made the plain way."""

from collections.abc import Sequence

from usageflow.events.v1.events_pb2 import EventBatch, EventColumns, UsageEvent

from services.aggregator.fold import rows_of


def columns_of(events: Sequence[UsageEvent]) -> EventColumns:
    """All that the events say; nothing is left out, even if all have it in common."""
    metrics = sorted({event.metric for event in events})
    amounts = sorted({event.amount for event in events})
    customers = sorted({event.customer_id for event in events})
    metadata = sorted({event.metadata_json for event in events})
    return EventColumns(
        event_ids=b"".join(event.event_id for event in events),
        metrics=metrics,
        metric_indexes=[metrics.index(event.metric) for event in events],
        amounts=amounts,
        amount_indexes=[amounts.index(event.amount) for event in events],
        customer_ids=customers,
        customer_indexes=[customers.index(event.customer_id) for event in events],
        times_unix_micros=[event.time_unix_micros for event in events],
        metadata_json=metadata,
        metadata_indexes=[metadata.index(event.metadata_json) for event in events],
    )


def events_of(batch: EventBatch) -> list[UsageEvent]:
    """All events of a batch, voids aside."""
    return [
        event
        for tenant in batch.tenants
        for event in (
            *tenant.events,
            *(UsageEvent(**row._asdict()) for row in rows_of(tenant.columns)),
        )
    ]
