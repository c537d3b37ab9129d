"""/api/plans"""

from litestar import get, post
from litestar.params import FromPath, JSONBody
from litestar.response import Stream
from usageflow.invoicer.v1 import invoicer_pb2 as pb

from gateway.calls import ApiCalls
from gateway.query import Asked, query
from gateway.shapes.common import PageQuery
from gateway.shapes.plans import (
    NewPlan,
    Plan,
    PlanPage,
    PlanQuery,
    Quote,
    QuoteRequest,
    from_proto,
    quote_from_proto,
    quote_to_proto,
    to_proto,
)
from gateway.shapes.simulations import SimulationRequest
from gateway.shapes.simulations import to_proto as simulation_to_proto
from gateway.simulation import simulate


@post("/api/plans")
async def create_plan(calls: ApiCalls, data: JSONBody[NewPlan]) -> Plan:
    """Make a plan. Its metrics must be known: define each with `POST /api/metrics`, or send its
    first event; 400 names one that is not, or is archived.
    """
    request = pb.CreatePlanRequest(plan=to_proto(data))
    return from_proto((await calls.call(calls.invoicer.CreatePlan, request)).plan)


@get("/api/plans", dependencies=query(PageQuery))
async def list_plans(calls: ApiCalls, asked: Asked[PageQuery]) -> PlanPage:
    """List the newest version of each plan, newest first."""
    request = pb.ListPlansRequest(page_size=asked.limit, page_token=asked.cursor)
    answer = await calls.call(calls.invoicer.ListPlans, request)
    return PlanPage(
        data=[from_proto(plan) for plan in answer.plans],
        next_cursor=answer.next_page_token or None,
    )


@get("/api/plans/{plan_id:str}", dependencies=query(PlanQuery))
async def get_plan(calls: ApiCalls, plan_id: FromPath[str], asked: Asked[PlanQuery]) -> Plan:
    """One version of a plan."""
    request = pb.GetPlanRequest(plan_id=plan_id, version=asked.version)
    return from_proto((await calls.call(calls.invoicer.GetPlan, request)).plan)


@post("/api/plans/{plan_id:str}/versions")
async def create_plan_version(
    calls: ApiCalls, plan_id: FromPath[str], data: JSONBody[NewPlan]
) -> Plan:
    """Make a plan's next version, of known metrics, too; subscriptions stay on theirs."""
    request = pb.CreatePlanVersionRequest(plan=to_proto(data, plan_id))
    return from_proto((await calls.call(calls.invoicer.CreatePlanVersion, request)).plan)


@post("/api/plans/quote", status_code=200)
async def quote_plan(calls: ApiCalls, data: JSONBody[QuoteRequest]) -> Quote:
    """What a plan would cost for given quantities, of any metrics; nothing is stored."""
    answer = await calls.call(calls.invoicer.QuotePlan, quote_to_proto(data))
    return quote_from_proto(answer)


@post("/api/plans/simulate", status_code=200, media_type="application/x-ndjson")
async def simulate_plan(calls: ApiCalls, data: JSONBody[SimulationRequest]) -> Stream:
    """What past months' usage would have cost with a plan, of known metrics; nothing is stored.

    A stream of JSON lines, each with a `type`: `customer` (`customerId`, `subscriptions`,
    `oldAmount` with the present plans, `oldCurrency`, `newAmount`, `difference`), `progress`
    (`customersDone`, `customersTotal`), and at the very end `total` (`currency`, `customers`,
    `customersMore`, `customersLess`, `customersOtherCurrency`, `oldAmount`, `newAmount`,
    `difference`, `asOf`). A stream that ends without it has failed. Amounts are before taxes,
    one-off charges and credit; setup fees are in neither.
    """
    lines = await simulate(calls, simulation_to_proto(data))
    return Stream(lines, media_type="application/x-ndjson")


HANDLERS = [create_plan, list_plans, get_plan, create_plan_version, quote_plan, simulate_plan]
