"""Translates between proto and domain what is about finalized documents."""

from usageflow.invoicer.v1 import documents_pb2 as pb
from usageflow.invoicer.v1.documents_pb2_grpc import DocumentsServiceServicer

from services.invoicer.issuers import Issuer
from services.invoicer.service.documents import Documents, RenderFormat
from services.invoicer.service.line_events import LineEvents
from services.invoicer.service.paging import Page
from services.kit.auth import require_scope
from services.kit.etag import expecting, tagged


class DocumentsServicer(DocumentsServiceServicer):
    """What callers with an API key may ask of invoices of their organization and mode."""

    def __init__(self, line_events: LineEvents, documents: Documents) -> None:
        self._line_events = line_events
        self._documents = documents

    async def ListLineEvents(
        self, request: pb.ListLineEventsRequest, context: object
    ) -> pb.ListLineEventsResponse:
        """A page of the raw events behind a line."""
        tenant = require_scope("read").tenant
        page = Page(request.page_size, request.page_token)
        found = await self._line_events.list_line_events(
            tenant, request.invoice_id, request.line, page
        )
        events = [pb.LineEvent(event=each.event, taken_out=each.taken_out) for each in found.events]
        return pb.ListLineEventsResponse(
            events=events,
            next_page_token=found.next_page_token,
            exact=found.exact,
            dropped=not found.complete,
        )

    async def GetIssuer(
        self, request: pb.GetIssuerRequest, context: object
    ) -> pb.GetIssuerResponse:
        """Who issues invoices."""
        issuer = await self._documents.get_issuer(require_scope("read").tenant)
        return pb.GetIssuerResponse(issuer=_issuer(issuer))

    async def SetIssuer(
        self, request: pb.SetIssuerRequest, context: object
    ) -> pb.SetIssuerResponse:
        """Set who issues invoices from now on."""
        tenant, given = require_scope("admin").tenant, request.issuer
        issuer = Issuer(
            given.name, given.address, given.tax_id, given.email, given.footer, given.logo
        )
        return pb.SetIssuerResponse(
            issuer=_issuer(
                await self._documents.set_issuer(
                    tenant, issuer, expect=expecting(request.if_match, _issuer)
                )
            )
        )

    async def GetRenderedInvoice(
        self, request: pb.GetRenderedInvoiceRequest, context: object
    ) -> pb.GetRenderedInvoiceResponse:
        """An invoice as a file for people."""
        tenant = require_scope("read").tenant
        html = request.format == pb.RENDER_FORMAT_HTML
        wanted = RenderFormat.HTML if html else RenderFormat.PDF
        content, name, customer_id = await self._documents.render_invoice(
            tenant, request.invoice_id, wanted
        )
        return pb.GetRenderedInvoiceResponse(
            content=content, filename=name, customer_id=customer_id
        )


def _issuer(issuer: Issuer) -> pb.Issuer:
    message = pb.Issuer(
        name=issuer.name,
        address=issuer.address,
        tax_id=issuer.tax_id,
        email=issuer.email,
        footer=issuer.footer,
        logo=issuer.logo,
    )
    return tagged(message)
