"""What periods of subscriptions are expected to cost."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta
from usageflow.invoicer.v1 import budgets_pb2 as pb

from gateway.fields import Quantity
from gateway.shapes.common import Amount, time_of


class NewBudget(msgspec.Struct, rename="camel", kw_only=True):
    """What a period of the subscription is expected to cost, taxes included."""

    amount: Annotated[
        Quantity, Meta(description="Exact decimal > 0, in minor units of the plan's currency")
    ]
    percents: (
        Annotated[
            list[Annotated[int, Meta(ge=1, le=1_000)]],
            Meta(
                max_length=10,
                description="usage.threshold_reached goes out at each of these percentages of the "
                "amount, once a period; null or none: 50, 80, 100",
            ),
        ]
        | None
    ) = None


class Budget(msgspec.Struct, rename="camel", kw_only=True):
    """A subscription's budget."""

    subscription_id: str
    amount: Amount
    currency: str
    percents: list[int]
    created_at: datetime
    updated_at: datetime


def to_proto(subscription_id: str, budget: NewBudget) -> pb.SetBudgetRequest:
    """The request that sets it."""
    return pb.SetBudgetRequest(
        subscription_id=subscription_id, amount=budget.amount, percents=budget.percents or []
    )


def from_proto(message: pb.Budget) -> Budget:
    """The JSON of a budget."""
    return Budget(
        subscription_id=message.subscription_id,
        amount=message.amount,
        currency=message.currency,
        percents=list(message.percents),
        created_at=time_of(message.create_time),
        updated_at=time_of(message.update_time),
    )
