"""Simulations: what past months would have cost with a plan."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta
from usageflow.invoicer.v1 import simulation_pb2 as pb

from gateway.shapes.common import Amount, time_or_none
from gateway.shapes.plans import QuotedPlan
from gateway.shapes.plans import to_proto as plan_to_proto

CUSTOMER_IDS_MAX = 10_000


class SimulationRequest(msgspec.Struct, rename="camel", kw_only=True):
    """A plan, months in each customer's time zone, and for whom."""

    plan: QuotedPlan
    from_month: Annotated[str, Meta(description="First month, as 2026-01")] = msgspec.field(
        name="from"
    )
    to_month: Annotated[
        str, Meta(description="Last month; one that still runs has the usage there is")
    ] = msgspec.field(name="to")
    customer_ids: Annotated[
        list[str],
        Meta(max_length=CUSTOMER_IDS_MAX, description="Empty: all who have a subscription"),
    ] = []
    plan_id: Annotated[
        str, Meta(description="Only subscriptions now on this plan; empty: on any")
    ] = ""


class SimulatedCustomer(msgspec.Struct, rename="camel", kw_only=True, tag="customer"):
    """What one customer's months cost, before taxes, one-off charges and credit."""

    customer_id: str
    subscriptions: int
    old_amount: Amount | None
    old_currency: str | None
    new_amount: Amount
    difference: Amount | None


class SimulationProgress(msgspec.Struct, rename="camel", kw_only=True, tag="progress"):
    """How far it has got."""

    customers_done: int
    customers_total: int


class SimulationTotal(msgspec.Struct, rename="camel", kw_only=True, tag="total"):
    """The sums of all customers whose present plans have the plan's currency."""

    currency: str
    customers: int
    customers_more: int
    customers_less: int
    customers_other_currency: int
    old_amount: Amount
    new_amount: Amount
    difference: Amount
    as_of: datetime | None


SimulationLine = SimulatedCustomer | SimulationProgress | SimulationTotal


def to_proto(asked: SimulationRequest) -> pb.SimulatePlanRequest:
    """The message of a simulation."""
    return pb.SimulatePlanRequest(
        plan=plan_to_proto(asked.plan),
        from_month=asked.from_month,
        to_month=asked.to_month,
        customer_ids=asked.customer_ids,
        plan_id=asked.plan_id,
    )


def lines_of(part: pb.SimulatePlanResponse) -> list[SimulationLine]:
    """The lines of a part of the answer."""
    lines: list[SimulationLine] = [
        SimulatedCustomer(
            customer_id=each.customer_id,
            subscriptions=each.subscriptions,
            old_amount=each.old_amount or None,
            old_currency=each.old_currency or None,
            new_amount=each.new_amount,
            difference=each.difference or None,
        )
        for each in part.customers
    ]
    lines.append(
        SimulationProgress(customers_done=part.customers_done, customers_total=part.customers_total)
    )
    if part.HasField("total"):
        lines.append(_total(part.total))
    return lines


def _total(total: pb.SimulationTotal) -> SimulationTotal:
    return SimulationTotal(
        currency=total.currency,
        customers=total.customers,
        customers_more=total.customers_more,
        customers_less=total.customers_less,
        customers_other_currency=total.customers_other_currency,
        old_amount=total.old_amount,
        new_amount=total.new_amount,
        difference=total.difference,
        as_of=time_or_none(total, "as_of"),
    )
