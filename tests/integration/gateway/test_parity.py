"""What can be done over gRPC can be done over HTTP, and the other way round; with -v: by what."""

from collections.abc import Iterable
from functools import cache

import httpx
import pytest
from google.protobuf.descriptor import ServiceDescriptor

from tests.integration.gateway.conftest import MODULES, Gateway
from tests.integration.gateway.test_routes_over_http import CASES

# Routes that have tests of their own in place of a case.
SERVED_OTHERWISE = {
    "GetCurrentMember": ["GET /api/sessions/current"],
    "RecordEvents": ["POST /api/track", "POST /api/track/batch"],
    "ListAuditEvents": ["GET /api/audit.csv"],
    "QueryUsage": ["GET /api/usage.csv"],
    "ListInvoices": ["GET /api/invoices.csv", "GET /api/invoices.jsonl"],
    "GetRenderedInvoice": ["GET /api/invoices/inv_1/pdf", "GET /api/invoices/inv_1/html"],
    "WatchUsage": ["GET /api/usage/live"],
    "SimulatePlan": ["POST /api/plans/simulate"],
}
WITHOUT_ROUTE = {
    "GetCurrentPortal": "for links to the customer portal, which /api does not take",
    "StreamEvents": "back-pressure event by event needs two directions; over HTTP a body of NDJSON",
    "ListenEvents": "for `usageflow webhooks listen`, over HTTP there are webhooks",
}


def public_rpcs() -> Iterable[str]:
    """The RPCs for callers with an API key or a session."""
    for messages, _stubs in MODULES:
        for service in messages.DESCRIPTOR.services_by_name.values():
            if not service.name.endswith("InternalService"):
                yield from rpcs_of(service)


def rpcs_of(service: ServiceDescriptor) -> Iterable[str]:
    """Their names; no two of our services have one in common."""
    return (method.name for method in service.methods)


@cache
def routes_by_rpc() -> dict[str, list[str]]:
    """Method and path of what the cases of the routes ask for."""
    routes = {rpc: list(paths) for rpc, paths in SERVED_OTHERWISE.items()}
    for case in CASES:
        for rpc in (case.rpc, *case.others):
            shown = f"{case.method} {case.path.partition('?')[0]}"
            if shown not in routes.setdefault(rpc, []):
                routes[rpc].append(shown)
    return routes


def shown(rpc: str) -> str:
    """The name of a test."""
    routes = routes_by_rpc().get(rpc) or [f"no route: {WITHOUT_ROUTE.get(rpc, '?')}"]
    return f"{rpc} <- {', '.join(routes)}"


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Gateway:
    """One gateway for all tests here."""
    return shared_gateway.forgetful()


def test_no_two_services_have_an_rpc_of_one_name() -> None:
    names = list(public_rpcs())
    assert len(names) == len(set(names))


@pytest.mark.parametrize("rpc", list(public_rpcs()), ids=shown)
def test_an_rpc_has_a_route_or_a_reason(rpc: str) -> None:
    assert (rpc in routes_by_rpc()) != (rpc in WITHOUT_ROUTE)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_route_serves_an_rpc(http: httpx.AsyncClient) -> None:
    document = (await http.get("/api/openapi.json")).json()
    served = [route.split(" ") for routes in routes_by_rpc().values() for route in routes]
    for path, item in document["paths"].items():
        for method in item:
            assert any(used == method.upper() and _fits(path, asked) for used, asked in served), (
                f"{method} {path} has no case"
            )


def _fits(template: str, path: str) -> bool:
    wanted, given = template.split("/"), path.split("/")
    return len(wanted) == len(given) and all(
        one == other or one.startswith("{") for one, other in zip(wanted, given, strict=True)
    )


def test_a_reason_is_of_an_rpc_that_there_is() -> None:
    assert WITHOUT_ROUTE.keys() <= set(public_rpcs())
