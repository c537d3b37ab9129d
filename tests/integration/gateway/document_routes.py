"""Cases of the routes about what invoices rest on."""

from usageflow.invoicer.v1 import documents_pb2 as documents

from tests.integration.gateway.event_routes import VOIDED_EVENT, VOIDED_EVENT_JSON
from tests.integration.gateway.route_cases import Case, page

ISSUER = documents.Issuer(
    name="Straße GmbH", address="A 1\nB", tax_id="DE1", email="a@b.c", footer="IBAN", logo=b"\0\xff"
)
ISSUER_JSON = {
    "name": "Straße GmbH",
    "address": "A 1\nB",
    "taxId": "DE1",
    "email": "a@b.c",
    "footer": "IBAN",
    "logo": "AP8=",
}
CASES = [
    Case(
        "GET",
        "/api/issuer",
        "GetIssuer",
        documents.GetIssuerRequest(),
        documents.GetIssuerResponse(issuer=ISSUER),
        ISSUER_JSON,
    ),
    Case(
        "PUT",
        "/api/issuer",
        "SetIssuer",
        documents.SetIssuerRequest(issuer=ISSUER),
        documents.SetIssuerResponse(issuer=ISSUER),
        ISSUER_JSON,
        ISSUER_JSON,
    ),
    Case(
        "GET",
        "/api/invoices/inv_1/lines/2/events?limit=5&cursor=c",
        "ListLineEvents",
        documents.ListLineEventsRequest(invoice_id="inv_1", line=2, page_size=5, page_token="c"),
        documents.ListLineEventsResponse(
            events=[documents.LineEvent(event=VOIDED_EVENT, taken_out=True)],
            next_page_token="next",
            exact=True,
            dropped=True,
        ),
        {**page({**VOIDED_EVENT_JSON, "takenOut": True}), "exact": True, "complete": False},
    ),
    Case(
        "GET",
        "/api/invoices/inv_1/lines/99999999999/events",
        "ListLineEvents",
        documents.ListLineEventsRequest(invoice_id="inv_1", page_size=20),
        documents.ListLineEventsResponse(),
        {"data": [], "nextCursor": None, "exact": False, "complete": True},
    ),
]
