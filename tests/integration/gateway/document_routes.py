"""Cases of the routes about what invoices rest on."""

from usageflow.invoicer.v1 import documents_pb2 as documents

from tests.integration.gateway.other_routes import VOIDED_EVENT, VOIDED_EVENT_JSON
from tests.integration.gateway.route_cases import Case, page

CASES = [
    Case(
        "GET",
        "/api/invoices/inv_1/lines/2/events?limit=5&cursor=c",
        "ListLineEvents",
        documents.ListLineEventsRequest(invoice_id="inv_1", line=2, page_size=5, page_token="c"),
        documents.ListLineEventsResponse(
            events=[documents.LineEvent(event=VOIDED_EVENT, taken_out=True)],
            next_page_token="next",
            exact=True,
        ),
        {**page({**VOIDED_EVENT_JSON, "takenOut": True}), "exact": True},
    ),
    Case(
        "GET",
        "/api/invoices/inv_1/lines/99999999999/events",
        "ListLineEvents",
        documents.ListLineEventsRequest(invoice_id="inv_1", page_size=20),
        documents.ListLineEventsResponse(),
        {"data": [], "nextCursor": None, "exact": False},
    ),
]
