"""/api/invoices/{id}/...: what invoices rest on."""

from typing import Final

from litestar import Response, get, put
from litestar.params import FromPath, JSONBody
from usageflow.invoicer.v1 import documents_pb2 as pb

from gateway.calls import ApiCalls
from gateway.preconditions import IfMatch, etag, tags_of
from gateway.query import Asked, query
from gateway.shapes.issuer import Issuer, from_proto, to_proto
from gateway.shapes.line_events import LineEventPage, LineEventsQuery, page_from_proto

LINE_DIGITS_MAX = 9
RENDER_S: Final = 30.0
_PDF: Final = "application/pdf"
_HTML: Final = "text/html"
# The page holds its style and its logo; nothing else is loaded, and nothing runs.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


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


@get("/api/invoices/{invoice_id:str}/pdf", media_type=_PDF)
async def get_invoice_pdf(calls: ApiCalls, invoice_id: FromPath[str]) -> Response[bytes]:
    """An invoice as PDF, with its lines, taxes and sum, as it was when it was finalized."""
    return await _rendered(calls, invoice_id, pb.RENDER_FORMAT_PDF, _PDF)


@get("/api/invoices/{invoice_id:str}/html", media_type=_HTML)
async def get_invoice_html(calls: ApiCalls, invoice_id: FromPath[str]) -> Response[bytes]:
    """An invoice as a page of HTML without scripts, which shows how each amount came about."""
    return await _rendered(calls, invoice_id, pb.RENDER_FORMAT_HTML, _HTML)


async def _rendered(
    calls: ApiCalls, invoice_id: str, wanted: pb.RenderFormat.ValueType, media_type: str
) -> Response[bytes]:
    request = pb.GetRenderedInvoiceRequest(invoice_id=invoice_id, format=wanted)
    made = await calls.call(calls.documents.GetRenderedInvoice, request, RENDER_S)
    headers = {
        "content-disposition": f'inline; filename="{made.filename}"',
        "content-security-policy": _POLICY,
        "x-content-type-options": "nosniff",
    }
    return Response(made.content, media_type=media_type, headers=headers)


@get("/api/issuer")
async def get_issuer(calls: ApiCalls) -> Response[Issuer]:
    """Who issues invoices: what stands on them."""
    answer = await calls.call(calls.documents.GetIssuer, pb.GetIssuerRequest())
    return Response(from_proto(answer.issuer), headers=etag(answer.issuer))


@put("/api/issuer")
async def set_issuer(
    calls: ApiCalls, data: JSONBody[Issuer], if_match: IfMatch = None
) -> Response[Issuer]:
    """Set who issues invoices from now on; those that are finalized keep what was set then."""
    request = to_proto(data)
    request.if_match.extend(tags_of(if_match))
    answer = await calls.call(calls.documents.SetIssuer, request, RENDER_S)
    return Response(from_proto(answer.issuer), headers=etag(answer.issuer))


HANDLERS = [list_line_events, get_invoice_pdf, get_invoice_html, get_issuer, set_issuer]
