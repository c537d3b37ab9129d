"""What a time has brought, and what accrues."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, field
from usageflow.invoicer.v1 import invoicer_pb2 as pb

from gateway.shapes.common import Amount, time_of, timestamp


class RevenueQuery(msgspec.Struct, rename="camel", kw_only=True):
    """Of which time, half-open, at most 366 days."""

    from_: Annotated[
        datetime | None,
        Meta(description="Made at or after; left out: since the month of the end began, UTC"),
    ] = field(default=None, name="from")
    to: Annotated[datetime | None, Meta(description="Made before; left out: now")] = None


class CurrencyRevenue(msgspec.Struct, rename="camel", kw_only=True):
    """The revenue in one currency."""

    currency: str
    invoiced: Annotated[Amount, Meta(description="Invoices that are not void, with taxes")]
    credited: Annotated[Amount, Meta(description="Credit notes")]
    accrued: Annotated[
        Amount, Meta(description="What the running periods come to now; on no invoice yet")
    ]


class Revenue(msgspec.Struct, rename="camel", kw_only=True):
    """What a time has brought, and what accrues."""

    from_: datetime = field(name="from")
    to: datetime
    as_of: Annotated[datetime, Meta(description="Usage accepted before it is in what accrues")]
    complete: Annotated[bool, Meta(description="Whether what accrues is that of all subscriptions")]
    data: list[CurrencyRevenue]


def to_proto(asked: RevenueQuery) -> pb.GetRevenueRequest:
    """The request that asks for it."""
    # The field's name is a keyword of Python.
    start: dict[str, Any] = {"from": timestamp(asked.from_)}
    return pb.GetRevenueRequest(to=timestamp(asked.to), **start)


def from_proto(message: pb.GetRevenueResponse) -> Revenue:
    """The JSON of revenue."""
    return Revenue(
        from_=time_of(getattr(message, "from")),
        to=time_of(message.to),
        as_of=time_of(message.as_of),
        complete=message.complete,
        data=[
            CurrencyRevenue(
                currency=each.currency,
                invoiced=each.invoiced,
                credited=each.credited,
                accrued=each.accrued,
            )
            for each in message.currencies
        ],
    )
