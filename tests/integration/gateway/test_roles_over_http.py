"""Every route with every role, and with a key: what its RPCs let through, the route does."""

import httpx
import pytest

from services.kit.permissions import ROLES, permission_of
from tests.integration.gateway.conftest import Gateway, World, as_member
from tests.integration.gateway.test_roles import RPCS
from tests.integration.gateway.test_routes_over_http import CASES, sent_body

pytestmark = pytest.mark.asyncio(loop_scope="module")
FULL_NAMES = {method.name: rpc for rpc, method in RPCS}
KEY = "a key"


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Gateway:
    """One gateway for all tests here."""
    return shared_gateway.forgetful()


@pytest.mark.parametrize("who", [*ROLES, KEY])
async def test_a_route_is_for_those_whom_its_rpcs_are_for(
    http: httpx.AsyncClient, world: World, who: str
) -> None:
    if who != KEY:
        as_member(http, world, who)
    for case in CASES:
        permissions = [permission_of(FULL_NAMES[rpc]) for rpc in (case.rpc, *case.others)]
        may = all(
            each is not None and (each.keys if who == KEY else who in each.roles)
            for each in permissions
        )
        world.answers = {case.rpc: case.answer, **case.others}
        answer = await http.request(case.method, case.path, **sent_body(case.body))
        asked = f"{case.method} {case.path}: {answer.text}"
        if may:
            assert answer.status_code == case.status, asked
        else:
            reason = "members_only" if who == KEY else "missing_role"
            assert (answer.status_code, answer.json()["code"]) == (403, reason), asked
