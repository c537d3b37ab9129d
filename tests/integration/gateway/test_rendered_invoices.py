"""GET /api/invoices/{id}/pdf and /html: files, which load and run nothing."""

import httpx
import pytest
from usageflow.invoicer.v1 import documents_pb2 as pb

from services.kit.errors import NotFoundError
from tests.integration.gateway.conftest import Gateway, World

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Gateway:
    """One gateway for all tests here."""
    return shared_gateway.forgetful()


@pytest.mark.parametrize(
    ("form", "number", "media_type"),
    [
        ("pdf", pb.RENDER_FORMAT_PDF, "application/pdf"),
        ("html", pb.RENDER_FORMAT_HTML, "text/html; charset=utf-8"),
    ],
)
async def test_an_invoice_is_a_file(
    http: httpx.AsyncClient,
    world: World,
    form: str,
    number: pb.RenderFormat.ValueType,
    media_type: str,
) -> None:
    name = f"INV-000001.{form}"
    world.answers = {
        "GetRenderedInvoice": pb.GetRenderedInvoiceResponse(content=b"\xff%PDF", filename=name)
    }
    answer = await http.get(f"/api/invoices/inv_1/{form}")
    assert (answer.status_code, answer.content) == (200, b"\xff%PDF")
    assert answer.headers["content-type"] == media_type
    assert answer.headers["content-disposition"] == f'inline; filename="{name}"'
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    request = pb.GetRenderedInvoiceRequest(invoice_id="inv_1", format=number)
    assert world.requests[-1] == ("GetRenderedInvoice", request)
    world.answers = {"GetRenderedInvoice": NotFoundError("No such invoice")}
    answer = await http.get(f"/api/invoices/inv_1/{form}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_logo_that_is_not_base64_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.put("/api/issuer", json={"logo": "not base64!"})
    assert answer.status_code == 400
    assert answer.json()["details"] == [{"field": "logo", "message": "must be base64"}]
