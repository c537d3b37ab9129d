"""/api/invoices"""

from litestar import get, post
from litestar.params import FromPath, JSONBody
from usageflow.invoicer.v1 import invoicer_pb2 as pb

from gateway.calls import ApiCalls
from gateway.query import Asked, query
from gateway.shapes.invoices import (
    Invoice,
    InvoicePage,
    InvoicePreview,
    InvoicesQuery,
    PreviewRequest,
    from_proto,
    preview_from_proto,
    status_number,
)


@get("/api/invoices", dependencies=query(InvoicesQuery))
async def list_invoices(calls: ApiCalls, asked: Asked[InvoicesQuery]) -> InvoicePage:
    """List the invoices, newest first."""
    request = pb.ListInvoicesRequest(
        customer_id=asked.customer_id,
        subscription_id=asked.subscription_id,
        status=status_number(asked.status),
        page_size=asked.limit,
        page_token=asked.cursor,
    )
    answer = await calls.call(calls.invoicer.ListInvoices, request)
    return InvoicePage(
        data=[from_proto(invoice) for invoice in answer.invoices],
        next_cursor=answer.next_page_token or None,
    )


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
async def pay_invoice(calls: ApiCalls, invoice_id: FromPath[str]) -> Invoice:
    """Mark an invoice paid; repeating it changes nothing."""
    request = pb.PayInvoiceRequest(invoice_id=invoice_id)
    return from_proto((await calls.call(calls.invoicer.PayInvoice, request)).invoice)


@post("/api/invoices/{invoice_id:str}/fail", status_code=200)
async def fail_invoice(calls: ApiCalls, invoice_id: FromPath[str]) -> Invoice:
    """Record a failed payment; after the set number of them the subscription is suspended."""
    request = pb.FailInvoiceRequest(invoice_id=invoice_id)
    return from_proto((await calls.call(calls.invoicer.FailInvoice, request)).invoice)


@post("/api/invoices/{invoice_id:str}/void", status_code=200)
async def void_invoice(calls: ApiCalls, invoice_id: FromPath[str]) -> Invoice:
    """Declare an unpaid invoice void; its number stays used."""
    request = pb.VoidInvoiceRequest(invoice_id=invoice_id)
    return from_proto((await calls.call(calls.invoicer.VoidInvoice, request)).invoice)


HANDLERS = [
    list_invoices,
    get_invoice,
    preview_invoice,
    pay_invoice,
    fail_invoice,
    void_invoice,
]
