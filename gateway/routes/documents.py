"""/api/invoices/{id}/...: what invoices rest on."""

from litestar import get
from litestar.params import FromPath
from usageflow.invoicer.v1 import documents_pb2 as pb

from gateway.calls import ApiCalls
from gateway.query import Asked, query
from gateway.shapes.line_events import LineEventPage, LineEventsQuery, page_from_proto

LINE_DIGITS_MAX = 9


@get(
    "/api/invoices/{invoice_id:str}/lines/{line:str}/events",
    dependencies=query(LineEventsQuery),
)
async def list_line_events(
    calls: ApiCalls, invoice_id: FromPath[str], line: FromPath[str], asked: Asked[LineEventsQuery]
) -> LineEventPage:
    """List the raw events behind a line (from 1), newest first by when they happened.

    Those that were counted when the invoice was made, at any time later; one that was voided since
    says so. Of late usage: those that have changed the figure since it was billed before. A line
    that bills no usage has none.
    """
    request = pb.ListLineEventsRequest(
        invoice_id=invoice_id,
        line=number_of_line(line),
        page_size=asked.limit,
        page_token=asked.cursor,
    )
    return page_from_proto(await calls.call(calls.documents.ListLineEvents, request))


def number_of_line(text: str) -> int:
    """A line's number; 0, which no line has, for what is none."""
    known = text.isascii() and text.isdecimal() and len(text) <= LINE_DIGITS_MAX
    return int(text) if known else 0


HANDLERS = [list_line_events]
