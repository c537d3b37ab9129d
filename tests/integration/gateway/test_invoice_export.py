"""GET /api/invoices.csv and .jsonl: streamed, page by page."""

import csv
import io
import json

import httpx
import pytest
from google.protobuf.message import Message
from usageflow.invoicer.v1 import invoicer_pb2 as pb

from services.kit import errors
from tests.integration.gateway.billing_routes import INVOICE, INVOICE_JSON
from tests.integration.gateway.conftest import Gateway, World
from tests.integration.gateway.route_cases import at

pytestmark = pytest.mark.asyncio(loop_scope="module")
ASKED = "?customerId=user_1&from=2026-01-01T00:00:00Z"


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Gateway:
    """One gateway for all tests here."""
    return shared_gateway.forgetful()


@pytest.fixture
def pages(world: World, monkeypatch: pytest.MonkeyPatch) -> list[Message | Exception]:
    """What ListInvoices answers, one page after the other."""
    left: list[Message | Exception] = []
    plainly = world.answer

    async def answer(method: str, request: Message) -> Message:
        if method == "ListInvoices":
            world.answers[method] = left.pop(0)
        return await plainly(method, request)

    monkeypatch.setattr(world, "answer", answer)
    return left


def page(token: str = "", **changes: str) -> pb.ListInvoicesResponse:
    """One invoice."""
    invoice = pb.Invoice()
    invoice.CopyFrom(INVOICE)
    for name, value in changes.items():
        setattr(invoice, name, value)
    return pb.ListInvoicesResponse(invoices=[invoice], next_page_token=token)


async def test_all_pages_become_one_table_with_a_row_a_line(
    http: httpx.AsyncClient, world: World, pages: list[Message | Exception]
) -> None:
    awkward = 'a "b",\nc'
    pages += [page("next", customer_id=awkward), page(subscription_id="")]
    answer = await http.get("/api/invoices.csv" + ASKED)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="invoices.csv"'
    first, second = csv.DictReader(io.StringIO(answer.text, newline=""))
    assert (first["customerId"], first["subscriptionId"]) == (awkward, "sub_1")
    assert (second["customerId"], second["subscriptionId"]) == ("user_1", "")
    del first["customerId"], first["subscriptionId"]
    assert first == {
        "invoiceId": "inv_1",
        "number": "INV-000001",
        "status": "PENDING",
        "currency": "USD",
        "invoiceAmount": "120.03",
        "creditsApplied": "20.00",
        "amountDue": "100.03",
        "periodStart": "2026-01-01T00:00:00Z",
        "periodEnd": "2026-01-31T00:00:00Z",
        "createdAt": "2026-01-31T00:00:00Z",
        "line": "1",
        "description": "API_CALL",
        "metric": "API_CALL",
        "quantity": "12000",
        "includedUnits": "10000",
        "unitPrice": "0.01",
        "amount": "20.00",
        "linePeriodStart": "2026-01-01T00:00:00Z",
        "linePeriodEnd": "2026-01-31T00:00:00Z",
    }
    asked = [each for _, each in world.requests if isinstance(each, pb.ListInvoicesRequest)]
    assert [request.page_token for request in asked] == ["", "next"]
    for request in asked:
        assert (request.customer_id, getattr(request, "from")) == ("user_1", at(1))


async def test_json_lines_are_the_invoices_as_they_are_told_one_by_one(
    http: httpx.AsyncClient, pages: list[Message | Exception]
) -> None:
    pages += [page("next"), page(id="inv_2")]
    answer = await http.get("/api/invoices.jsonl" + ASKED)
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    told = [json.loads(line) for line in answer.text.splitlines()]
    assert told == [INVOICE_JSON, INVOICE_JSON | {"id": "inv_2"}]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
async def test_what_breaks_off_never_looks_whole(
    http: httpx.AsyncClient, pages: list[Message | Exception], form: str
) -> None:
    pages += [page("next"), errors.UnavailableError("away")]
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get(f"/api/invoices.{form}")


@pytest.mark.parametrize("form", ["csv", "jsonl"])
async def test_a_wrong_question_is_an_error_in_json(http: httpx.AsyncClient, form: str) -> None:
    for wrong in ("surprise=1", "limit=5", "from=x", "status=PAYED"):
        answer = await http.get(f"/api/invoices.{form}?{wrong}")
        assert answer.status_code == 400
        assert answer.json()["details"][0]["field"] == wrong.partition("=")[0]
