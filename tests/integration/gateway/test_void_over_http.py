"""POST /api/events/{id}/void."""

from typing import Any

import httpx
import pytest
from usageflow.ingest.v1 import ingest_pb2 as ingest

from tests.integration.gateway.conftest import Gateway, World
from tests.integration.gateway.event_routes import VOIDED, VOIDED_EVENT

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATH = "/api/events/evt_1/void"


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Gateway:
    """One gateway for all tests here."""
    return shared_gateway.forgetful()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [({}, ""), ({"json": {}}, ""), ({"json": {"reason": "sent twice"}}, "sent twice")],
    ids=["no body", "no reason", "a reason"],
)
async def test_a_void_answers_with_the_event_and_a_usage_token(
    http: httpx.AsyncClient, world: World, sent: dict[str, Any], reason: str
) -> None:
    world.answers = {"VoidEvents": VOIDED, "GetEvent": ingest.GetEventResponse(event=VOIDED_EVENT)}
    answer = await http.post(PATH, **sent)
    assert answer.status_code == 200, answer.text
    assert answer.json()["voidReason"] == "sent twice"
    assert answer.headers["usage-token"] == "token"
    asked = ingest.VoidEventsRequest(event_ids=["evt_1"], reason=reason)
    assert world.requests[0] == ("VoidEvents", asked)


async def test_an_event_that_is_not_there_is_404(http: httpx.AsyncClient, world: World) -> None:
    receipt = ingest.VoidReceipt(event_id="evt_1", status=ingest.VOID_STATUS_NOT_FOUND)
    world.answers = {"VoidEvents": ingest.VoidEventsResponse(receipts=[receipt])}
    answer = await http.post(PATH)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert [rpc for rpc, _request in world.requests] == ["VoidEvents"]


@pytest.mark.parametrize("body", [{"reason": "x" * 501}, {"reason": 1}, {"reasons": "x"}])
async def test_a_wrong_body_is_400(
    http: httpx.AsyncClient, world: World, body: dict[str, Any]
) -> None:
    answer = await http.post(PATH, json=body)
    assert answer.status_code == 400
    assert [detail["field"] for detail in answer.json()["details"]] == list(body)
    assert world.requests == []
