"""/api/invoices"""

from typing import Final

from litestar import get, post
from litestar.params import FromPath, JSONBody
from litestar.response import Stream
from usageflow.invoicer.v1 import invoicer_pb2 as pb

from gateway.calls import ApiCalls
from gateway.invoice_export import export_csv, export_json_lines
from gateway.query import Asked, query
from gateway.shapes.invoices import (
    Invoice,
    InvoicePage,
    InvoicePreview,
    InvoiceSelection,
    InvoicesQuery,
    PreviewRequest,
    from_proto,
    preview_from_proto,
    selection_to_proto,
)
from gateway.shapes.payments import PaymentNote

NOTHING_KNOWN: Final = PaymentNote()
_CSV: Final = "text/csv"
_JSON_LINES: Final = "application/x-ndjson"


@get("/api/invoices", dependencies=query(InvoicesQuery))
async def list_invoices(calls: ApiCalls, asked: Asked[InvoicesQuery]) -> InvoicePage:
    """List the invoices, newest first."""
    request = selection_to_proto(asked)
    request.page_size, request.page_token = asked.limit, asked.cursor
    answer = await calls.call(calls.invoicer.ListInvoices, request)
    return InvoicePage(
        data=[from_proto(invoice) for invoice in answer.invoices],
        next_cursor=answer.next_page_token or None,
    )


@get("/api/invoices.csv", dependencies=query(InvoiceSelection), media_type=_CSV)
async def export_invoices_csv(calls: ApiCalls, asked: Asked[InvoiceSelection]) -> Stream:
    """All lines of these invoices as CSV, newest invoice first, with the invoice in each row.

    It is streamed, however many there are.
    """
    headers = {"content-disposition": 'attachment; filename="invoices.csv"'}
    rows = await export_csv(calls, selection_to_proto(asked))
    return Stream(rows, media_type=_CSV, headers=headers)


@get("/api/invoices.jsonl", dependencies=query(InvoiceSelection), media_type=_JSON_LINES)
async def export_invoices_json_lines(calls: ApiCalls, asked: Asked[InvoiceSelection]) -> Stream:
    """These invoices with their lines as JSON lines, newest first; each as GET tells it.

    It is streamed, however many there are.
    """
    headers = {"content-disposition": 'attachment; filename="invoices.jsonl"'}
    lines = await export_json_lines(calls, selection_to_proto(asked))
    return Stream(lines, media_type=_JSON_LINES, headers=headers)


@get("/api/invoices/{invoice_id:str}")
async def get_invoice(calls: ApiCalls, invoice_id: FromPath[str]) -> Invoice:
    """One invoice with its lines."""
    request = pb.GetInvoiceRequest(invoice_id=invoice_id)
    return from_proto((await calls.call(calls.invoicer.GetInvoice, request)).invoice)


@post("/api/invoices/preview", status_code=200)
async def preview_invoice(calls: ApiCalls, data: JSONBody[PreviewRequest]) -> InvoicePreview:
    """What a subscription's invoice would be now, and what it will be at its period's end.

    Of the period that is not invoiced yet; nothing is written.
    """
    request = pb.PreviewInvoiceRequest(subscription_id=data.subscription_id)
    return preview_from_proto(await calls.call(calls.invoicer.PreviewInvoice, request))


@post("/api/invoices/{invoice_id:str}/pay", status_code=200)
async def pay_invoice(
    calls: ApiCalls, invoice_id: FromPath[str], data: JSONBody[PaymentNote] = NOTHING_KNOWN
) -> Invoice:
    """Mark an invoice paid; repeating it changes nothing. Its subscription, if it was suspended
    for it, is active again. Without a key of the provider it also tells what came of an attempt
    that is PENDING.
    """
    request = pb.PayInvoiceRequest(invoice_id=invoice_id, reference=data.reference)
    return from_proto((await calls.call(calls.invoicer.PayInvoice, request)).invoice)


@post("/api/invoices/{invoice_id:str}/fail", status_code=200)
async def fail_invoice(
    calls: ApiCalls, invoice_id: FromPath[str], data: JSONBody[PaymentNote] = NOTHING_KNOWN
) -> Invoice:
    """Record a failed payment.

    With one more than there are retry days the subscription is suspended. Without a key of the
    provider it also tells what came of an attempt that is PENDING.
    """
    request = pb.FailInvoiceRequest(invoice_id=invoice_id, reference=data.reference)
    return from_proto((await calls.call(calls.invoicer.FailInvoice, request)).invoice)


@post("/api/invoices/{invoice_id:str}/void", status_code=200)
async def void_invoice(calls: ApiCalls, invoice_id: FromPath[str]) -> Invoice:
    """Declare an unpaid invoice void; its number stays used."""
    request = pb.VoidInvoiceRequest(invoice_id=invoice_id)
    return from_proto((await calls.call(calls.invoicer.VoidInvoice, request)).invoice)


HANDLERS = [
    list_invoices,
    export_invoices_csv,
    export_invoices_json_lines,
    get_invoice,
    preview_invoice,
    pay_invoice,
    fail_invoice,
    void_invoice,
]
