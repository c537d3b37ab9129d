"""/dashboard/plans/{id}/simulation: what past months would have cost with a plan."""

import asyncio
import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

import grpc
from litestar import Response, get
from litestar.params import FromPath
from usageflow.invoicer.v1 import invoicer_pb2
from usageflow.invoicer.v1 import simulation_pb2 as pb

from gateway.calls import Calls
from gateway.dashboard.visit import Visited
from gateway.shapes import plans
from services.kit.errors import DomainError, UnavailableError, from_rpc_error

SHOWN_MAX: Final = 20
# A page is not waited for longer; the API and the command have all the time.
WAIT_S_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class Simulated:
    """The totals, and the customers whose amounts change most."""

    total: pb.SimulationTotal
    largest: list[pb.SimulatedCustomer]


@get("/dashboard/plans/{plan_id:str}/simulation", include_in_schema=False)
async def show_simulation(visit: Visited, plan_id: FromPath[str]) -> Response[bytes]:
    """Months to choose, and what they would have cost."""
    query = visit.request.query_params
    request = invoicer_pb2.GetPlanRequest(plan_id=plan_id)
    plan = (await visit.calls.call(visit.calls.invoicer.GetPlan, request)).plan
    before = f"{visit.month - timedelta(days=1):%Y-%m}"
    first, last = query.get("from", before), query.get("to", before)
    found, problem = None, ""
    if "from" in query:
        asked = pb.SimulatePlanRequest(plan=plan, from_month=first, to_month=last)
        try:
            found = await _simulated(visit.calls, asked)
        except DomainError as error:
            problem = error.message
    return visit.page(
        "plan_simulation.html",
        plan=plans.from_proto(plan),
        first=first,
        last=last,
        found=found,
        problem=problem,
    )


async def _simulated(calls: Calls, asked: pb.SimulatePlanRequest) -> Simulated:
    """DomainError, also when it takes too long for a page."""
    call = calls.stream(calls.simulations.SimulatePlan, asked, WAIT_S_MAX)
    largest: list[pb.SimulatedCustomer] = []
    try:
        async with asyncio.timeout(WAIT_S_MAX):
            async for part in call:
                largest = _largest([*largest, *part.customers])
                if part.HasField("total"):
                    return Simulated(part.total, largest)
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None
    except TimeoutError:
        pass
    finally:
        call.cancel()
    raise UnavailableError("That takes too long for a page: ask the API or usageflow simulate")


def _largest(customers: Iterable[pb.SimulatedCustomer]) -> list[pb.SimulatedCustomer]:
    comparable = (each for each in customers if each.difference)
    return heapq.nlargest(SHOWN_MAX, comparable, key=lambda each: abs(Decimal(each.difference)))


HANDLERS = [show_simulation]
