"""Translates between proto and domain what is about finalized documents."""

from usageflow.invoicer.v1 import documents_pb2 as pb
from usageflow.invoicer.v1.documents_pb2_grpc import DocumentsServiceServicer

from services.invoicer.service.line_events import LineEvents
from services.invoicer.service.paging import Page
from services.kit.auth import require_scope


class DocumentsServicer(DocumentsServiceServicer):
    """What callers with an API key may ask of invoices of their organization and mode."""

    def __init__(self, line_events: LineEvents) -> None:
        self._line_events = line_events

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
            events=events, next_page_token=found.next_page_token, exact=found.exact
        )
