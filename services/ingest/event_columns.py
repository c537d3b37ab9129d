"""Events as protobuf's EventColumns: what aggregator is sent."""

from collections.abc import Iterable

from usageflow.events.v1.events_pb2 import EventColumns

from services.ingest.events import Events


def event_columns(events: Events) -> EventColumns:
    """The events, in their order; all of one tenant."""
    metrics, metric_indexes = _column(events.metrics)
    amounts, amount_indexes = _column(events.amounts)
    customer_ids, customer_indexes = _column(events.customer_ids)
    metadata, metadata_indexes = _column(events.metadata_jsons)
    times = events.times_micros
    return EventColumns(
        event_ids=b"".join(events.ids),
        metrics=metrics,
        metric_indexes=metric_indexes,
        amounts=amounts,
        amount_indexes=amount_indexes,
        customer_ids=customer_ids,
        customer_indexes=customer_indexes,
        times_unix_micros=times[:1] if len(set(times)) == 1 else times,
        metadata_json=[] if metadata == [""] else metadata,
        metadata_indexes=metadata_indexes,
    )


def _column(values: list[str]) -> tuple[list[str], Iterable[int]]:
    """The values, each once, and each event's place among them; no places if there is one value."""
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return list(places), map(places.__getitem__, values) if len(places) > 1 else ()
