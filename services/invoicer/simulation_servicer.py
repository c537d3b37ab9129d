"""Translates between proto and domain what is about simulations."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from usageflow.invoicer.v1 import simulation_pb2 as pb
from usageflow.invoicer.v1.simulation_pb2_grpc import SimulationServiceServicer

from services.invoicer.exact import subtract
from services.invoicer.messages import plan_input, timestamp
from services.invoicer.service.simulations import SimulatedPart, Simulations
from services.invoicer.simulation import CustomerCost, Totals
from services.invoicer.simulation_checks import SimulationInput
from services.kit.auth import require_scope
from services.kit.money import format_money


class SimulationServicer(SimulationServiceServicer):
    """What callers with an API key may ask of a plan that is no more than a draft."""

    def __init__(self, simulations: Simulations) -> None:
        self._simulations = simulations

    async def SimulatePlan(
        self, request: pb.SimulatePlanRequest, context: object
    ) -> AsyncIterator[pb.SimulatePlanResponse]:
        """What months that have been cost with a plan."""
        caller = require_scope("read")
        given = SimulationInput(
            plan=plan_input(request.plan),
            from_month=request.from_month,
            to_month=request.to_month,
            customer_ids=request.customer_ids,
            plan_id=request.plan_id,
        )
        simulation = self._simulations.simulate(
            caller.tenant, given, strict_metrics=caller.strict_metrics
        )
        async with aclosing(simulation) as parts:
            async for part in parts:
                yield _part(part, request.plan.currency)


def _part(part: SimulatedPart, currency: str) -> pb.SimulatePlanResponse:
    return pb.SimulatePlanResponse(
        customers=[_customer(cost, currency) for cost in part.costs],
        customers_done=part.done,
        customers_total=part.customers,
        total=None if part.totals is None else _total(part.totals),
    )


def _customer(cost: CustomerCost, currency: str) -> pb.SimulatedCustomer:
    old, difference = cost.old_amount, cost.difference
    return pb.SimulatedCustomer(
        customer_id=cost.customer_id,
        subscriptions=cost.subscriptions,
        old_amount="" if old is None else format_money(old, cost.old_currency),
        new_amount=format_money(cost.new_amount, currency),
        difference="" if difference is None else format_money(difference, currency),
        old_currency=cost.old_currency,
    )


def _total(totals: Totals) -> pb.SimulationTotal:
    difference = subtract(totals.new_amount, totals.old_amount)
    return pb.SimulationTotal(
        currency=totals.currency,
        customers=totals.customers,
        customers_more=totals.more,
        customers_less=totals.less,
        customers_other_currency=totals.other_currency,
        old_amount=format_money(totals.old_amount, totals.currency),
        new_amount=format_money(totals.new_amount, totals.currency),
        difference=format_money(difference, totals.currency),
        as_of=timestamp(totals.as_of),
    )
