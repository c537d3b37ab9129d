"""How usage stands against what was accepted."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta
from usageflow.aggregator.v1 import aggregator_pb2 as pb

from gateway.shapes.common import Amount, time_of, time_or_none


class ReconciliationDifference(msgspec.Struct, rename="camel", kw_only=True):
    """An hour of a metric whose usage is not what was accepted."""

    metric: str
    hour: datetime
    accepted_count: int
    accepted_sum: Amount
    counted_count: int
    counted_sum: Amount
    found_at: datetime


class Reconciliation(msgspec.Struct, rename="camel", kw_only=True):
    """How usage stands against what was accepted."""

    checked_until: Annotated[
        datetime | None,
        Meta(description="All hours before it were compared after their end; null: none yet"),
    ]
    difference_count: Annotated[int, Meta(description="Differences that are not repaired")]
    differences: Annotated[
        list[ReconciliationDifference], Meta(description="Newest first, at most 100")
    ]


def from_proto(message: pb.GetReconciliationResponse) -> Reconciliation:
    """The JSON of it."""
    return Reconciliation(
        checked_until=time_or_none(message, "checked_until"),
        difference_count=message.difference_count,
        differences=[
            ReconciliationDifference(
                metric=each.metric,
                hour=time_of(each.hour),
                accepted_count=each.accepted_count,
                accepted_sum=each.accepted_sum,
                counted_count=each.counted_count,
                counted_sum=each.counted_sum,
                found_at=time_of(each.find_time),
            )
            for each in message.differences
        ],
    )
