"""GET /api/usage.csv: streamed, page by page."""

import csv
import io
from typing import Any

import httpx
import pytest
from google.protobuf.message import Message
from usageflow.aggregator.v1 import aggregator_pb2 as pb

from services.kit import errors
from services.kit.errors import FieldProblem
from tests.integration.gateway.conftest import Gateway, World
from tests.integration.gateway.route_cases import at

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATH = "/api/usage.csv?metric=AI_TOKEN&groupBy=model,customerId&window=DAY&filter[model]=x"


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Gateway:
    """One gateway for all tests here."""
    return shared_gateway.forgetful()


def page(token: str, *rows: tuple[str, str, str]) -> pb.QueryUsageResponse:
    """Rows of (model, customer, figure) on the first of January."""
    start: dict[str, Any] = {"from": at(1)}
    return pb.QueryUsageResponse(
        metric="AI_TOKEN",
        to=at(31),
        as_of=at(30),
        rows=[
            pb.UsageRow(
                start_time=at(1),
                end_time=at(2),
                group={"customerId": customer, "model": model},
                value=value,
            )
            for model, customer, value in rows
        ],
        next_page_token=token,
        **start,
    )


def serve(world: World, *pages: Message | Exception) -> list[pb.QueryUsageRequest]:
    """Answer with these pages; the requests that come."""
    left, seen = list(pages), []

    async def answer(method: str, request: Message) -> Message:
        assert isinstance(request, pb.QueryUsageRequest)
        copy = pb.QueryUsageRequest()
        copy.CopyFrom(request)
        seen.append(copy)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    original = world.answer

    async def dispatch(method: str, request: Message) -> Message:
        return await (answer if method == "QueryUsage" else original)(method, request)

    world.answer = dispatch  # type: ignore[method-assign]
    return seen


@pytest.fixture(autouse=True)
def answer_as_before(world: World) -> Any:
    """Each test sets its own pages."""
    yield
    world.__dict__.pop("answer", None)


async def test_all_pages_become_one_table(http: httpx.AsyncClient, world: World) -> None:
    awkward = 'a "b",\nc'
    seen = serve(world, page("next", ("x", "user_1", "0.1")), page("", ("", awkward, "12")))
    answer = await http.get(PATH)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="usage.csv"'
    assert "content-length" not in answer.headers
    assert list(csv.reader(io.StringIO(answer.text, newline=""))) == [
        ["start", "end", "model", "customerId", "value"],
        ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "x", "user_1", "0.1"],
        ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "", awkward, "12"],
    ]
    first, second = seen
    assert (first.page_token, second.page_token) == ("", "next")
    assert first.page_size == second.page_size > 0
    # The range that the first page took by default holds for all.
    assert not first.HasField("to")
    assert (getattr(second, "from"), second.to) == (at(1), at(31))
    assert dict(second.filters) == {"model": "x"}


async def test_without_usage_there_is_a_head(http: httpx.AsyncClient, world: World) -> None:
    serve(world, page(""))
    assert (await http.get(PATH)).text == "start,end,model,customerId,value\r\n"


async def test_a_wrong_question_is_an_error_in_json(http: httpx.AsyncClient, world: World) -> None:
    serve(world, errors.InvalidArgumentError([FieldProblem("groupBy", "is wrong")]))
    answer = await http.get(PATH)
    assert answer.status_code == 400
    assert answer.json()["details"] == [{"field": "groupBy", "message": "is wrong"}]
    for more in ("&limit=5", "&top=5", "&surprise=1"):
        answer = await http.get(PATH + more)
        assert answer.status_code == 400


async def test_a_table_that_breaks_off_never_looks_whole(
    http: httpx.AsyncClient, world: World
) -> None:
    serve(world, page("next", ("x", "user_1", "1")), errors.UnavailableError("away"))
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get(PATH)


async def test_it_is_documented(http: httpx.AsyncClient) -> None:
    document = (await http.get("/api/openapi.json")).json()
    operation = document["paths"]["/api/usage.csv"]["get"]
    assert "text/csv" in operation["responses"]["200"]["content"]
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert {"metric", "groupBy", "from", "to", "window", "timezone"} <= names
