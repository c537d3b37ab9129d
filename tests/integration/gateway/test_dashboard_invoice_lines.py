"""A line of an invoice in the dashboard: the events behind it, and whether some are gone."""

import httpx
import pytest
from usageflow.accounts.v1 import accounts_pb2
from usageflow.invoicer.v1 import documents_pb2, invoicer_pb2

from tests.integration.gateway.billing_routes import INVOICE
from tests.integration.gateway.conftest import Gateway, World, as_member
from tests.integration.gateway.event_routes import VOIDED_EVENT

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Gateway:
    """One gateway for all tests here."""
    return shared_gateway.forgetful()


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("events", [0, 1])
async def test_a_line_says_that_events_were_dropped(
    http: httpx.AsyncClient, world: World, dropped: bool, events: int
) -> None:
    as_member(http, world, "VIEWER")
    listed = [documents_pb2.LineEvent(event=VOIDED_EVENT)] * events
    world.answers = {
        "GetOrganization": accounts_pb2.GetOrganizationResponse(
            organization=accounts_pb2.Organization(name="Acme")
        ),
        "GetInvoice": invoicer_pb2.GetInvoiceResponse(invoice=INVOICE),
        "ListLineEvents": documents_pb2.ListLineEventsResponse(
            events=listed, exact=True, dropped=dropped
        ),
    }
    page = await http.get("/dashboard/invoices/inv_1/lines/1")
    assert page.status_code == 200, page.text
    assert ("Events of this line's period were dropped" in page.text) == dropped
    assert ("usage of nothing" in page.text) == (not dropped and not events)
