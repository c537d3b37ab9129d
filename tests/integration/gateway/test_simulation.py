"""POST /api/plans/simulate: a stream of JSON lines."""

import json

import httpx
import pytest
from usageflow.accounts.v1 import accounts_pb2
from usageflow.invoicer.v1 import invoicer_pb2
from usageflow.invoicer.v1 import simulation_pb2 as pb

from services.kit import errors
from tests.integration.gateway.billing_routes import NEW_PLAN, NEW_PLAN_JSON, PLAN
from tests.integration.gateway.conftest import Gateway, World, as_member
from tests.integration.gateway.route_cases import at

pytestmark = pytest.mark.asyncio(loop_scope="module")
ASKED = {
    "plan": NEW_PLAN_JSON,
    "from": "2026-01",
    "to": "2026-03",
    "customerIds": ["a", "b"],
    "planId": "plan_1",
}
PARTS = (
    pb.SimulatePlanResponse(customers_total=2),
    pb.SimulatePlanResponse(
        customers=[
            pb.SimulatedCustomer(
                customer_id="a",
                subscriptions=1,
                old_amount="1.00",
                old_currency="USD",
                new_amount="3.00",
                difference="2.00",
            ),
            pb.SimulatedCustomer(customer_id="b", new_amount="3.00"),
        ],
        customers_done=2,
        customers_total=2,
        total=pb.SimulationTotal(
            currency="USD",
            customers=1,
            customers_more=1,
            customers_other_currency=1,
            old_amount="1.00",
            new_amount="3.00",
            difference="2.00",
            as_of=at(1),
        ),
    ),
)
LINES = [
    {"type": "progress", "customersDone": 0, "customersTotal": 2},
    {
        "type": "customer",
        "customerId": "a",
        "subscriptions": 1,
        "oldAmount": "1.00",
        "oldCurrency": "USD",
        "newAmount": "3.00",
        "difference": "2.00",
    },
    {
        "type": "customer",
        "customerId": "b",
        "subscriptions": 0,
        "oldAmount": None,
        "oldCurrency": None,
        "newAmount": "3.00",
        "difference": None,
    },
    {"type": "progress", "customersDone": 2, "customersTotal": 2},
    {
        "type": "total",
        "currency": "USD",
        "customers": 1,
        "customersMore": 1,
        "customersLess": 0,
        "customersOtherCurrency": 1,
        "oldAmount": "1.00",
        "newAmount": "3.00",
        "difference": "2.00",
        "asOf": "2026-01-01T00:00:00Z",
    },
]


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Gateway:
    """One gateway for all tests here."""
    return shared_gateway.forgetful()


async def test_each_part_becomes_lines(http: httpx.AsyncClient, world: World) -> None:
    for part in (*PARTS, None):
        world.watched.put_nowait(part)
    answer = await http.post("/api/plans/simulate", json=ASKED)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(line) for line in answer.text.splitlines()] == LINES
    assert world.requests[-1] == (
        "SimulatePlan",
        pb.SimulatePlanRequest(
            plan=NEW_PLAN,
            from_month="2026-01",
            to_month="2026-03",
            customer_ids=["a", "b"],
            plan_id="plan_1",
        ),
    )


async def test_what_is_refused_at_once_is_an_error(http: httpx.AsyncClient, world: World) -> None:
    problem = errors.FieldProblem("from", "must not be after to")
    world.watched.put_nowait(errors.InvalidArgumentError([problem]))
    answer = await http.post("/api/plans/simulate", json=ASKED)
    assert answer.status_code == 400
    assert [detail["field"] for detail in answer.json()["details"]] == ["from"]


async def test_what_fails_later_ends_it_without_a_total(
    http: httpx.AsyncClient, world: World
) -> None:
    world.watched.put_nowait(PARTS[0])
    world.watched.put_nowait(errors.UnavailableError("usage can't be told"))
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post("/api/plans/simulate", json=ASKED)


async def test_unknown_fields_and_parameters_are_refused(http: httpx.AsyncClient) -> None:
    for path, body in (
        ("/api/plans/simulate", {**ASKED, "surprise": 1}),
        ("/api/plans/simulate?surprise=1", ASKED),
    ):
        answer = await http.post(path, json=body)
        assert [detail["field"] for detail in answer.json()["details"]] == ["surprise"]


async def test_the_dashboard_shows_the_totals_and_the_largest_changes(
    http: httpx.AsyncClient, world: World
) -> None:
    as_member(http, world, "VIEWER")
    world.answers = {
        "GetOrganization": accounts_pb2.GetOrganizationResponse(
            organization=accounts_pb2.Organization(name="Acme")
        ),
        "GetPlan": invoicer_pb2.GetPlanResponse(plan=PLAN),
    }
    path = "/dashboard/plans/plan_1/simulation"
    empty = await http.get(path)
    assert empty.status_code == 200, empty.text
    assert "Largest changes" not in empty.text
    for part in (*PARTS, None):
        world.watched.put_nowait(part)
    page = await http.get(f"{path}?from=2026-01&to=2026-03")
    assert "<dd data-difference>$2.00</dd>" in page.text
    assert page.text.count('<td class="wrap"><a class="main" href="/dashboard/customers/') == 1
    assert "1 pay in another currency" in page.text
    asked = world.requests[-1][1]
    assert isinstance(asked, pb.SimulatePlanRequest)
    assert (asked.plan, asked.from_month, asked.to_month) == (PLAN, "2026-01", "2026-03")
    world.watched.put_nowait(errors.InvalidArgumentError([errors.FieldProblem("from", "is <b>")]))
    refused = await http.get(f"{path}?from=x&to=2026-03")
    assert refused.status_code == 200
    assert "from: is &lt;b&gt;" in refused.text
