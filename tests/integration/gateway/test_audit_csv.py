"""GET /api/audit.csv: streamed, page by page."""

import csv
import io

import httpx
import pytest
from google.protobuf.message import Message
from usageflow.accounts.v1 import accounts_pb2 as pb

from services.kit import errors
from tests.integration.gateway.conftest import Gateway, World
from tests.integration.gateway.route_cases import at

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Gateway:
    """One gateway for all tests here."""
    return shared_gateway.forgetful()


def event(number: int, **more: str) -> pb.AuditEvent:
    return pb.AuditEvent(
        id=f"aud_{number}",
        action="plan.created",
        time=at(number),
        number=number,
        previous_hash="0a",
        hash="0b",
        **more,
    )


async def test_all_entries_are_lines(
    http: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {
        "": pb.ListAuditEventsResponse(
            events=[event(3, key_id="mem_1", details_json='{"a":"b,\\n"}')], next_page_token="next"
        ),
        "next": pb.ListAuditEventsResponse(events=[event(2, target_id="=1+1")]),
    }

    original = world.answer

    async def answer(method: str, request: Message) -> Message:
        if not isinstance(request, pb.ListAuditEventsRequest):
            return await original(method, request)
        assert (request.action, request.page_size) == ("plan.*", 100)
        return pages[request.page_token]

    monkeypatch.setattr(world, "answer", answer)
    got = await http.get("/api/audit.csv?action=plan.*")
    assert got.headers["content-type"].startswith("text/csv")
    assert "audit.csv" in got.headers["content-disposition"]
    header, *rows = csv.reader(io.StringIO(got.text, newline=""))
    shown = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["number"] for row in shown] == ["3", "2"]
    assert shown[0]["actorId"] == "mem_1"
    assert shown[0]["createdAt"] == "2026-01-03T00:00:00.000000Z"
    assert shown[0]["details"] == '{"a":"b,\\n"}'
    # No spreadsheet takes it for a formula.
    assert shown[1]["targetId"] == "'=1+1"


async def test_what_is_refused_is_refused_before_the_first_line(
    http: httpx.AsyncClient, world: World
) -> None:
    world.answers["ListAuditEvents"] = errors.PermissionDeniedError("no", reason="missing_scope")
    assert (await http.get("/api/audit.csv")).status_code == 403
    answer = await http.get("/api/audit.csv?keyId=key_1&memberId=mem_1")
    assert [each["field"] for each in answer.json()["details"]] == ["memberId"]
    answer = await http.get("/api/audit.csv?limit=5")
    assert [each["field"] for each in answer.json()["details"]] == ["limit"]
