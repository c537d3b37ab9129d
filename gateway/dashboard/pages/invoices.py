"""/dashboard/invoices"""

import asyncio
from collections.abc import Awaitable
from decimal import Decimal
from typing import Any, Final, cast
from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.invoicer.v1 import billing_terms_pb2, documents_pb2, invoicer_pb2, payments_pb2

from gateway.dashboard.forms import Form
from gateway.dashboard.visit import Visit, Visited, new_key
from gateway.routes.documents import number_of_line
from gateway.shapes import credit_notes, invoices, line_events
from gateway.shapes.credit_notes import NewCreditNote
from gateway.shapes.invoices import Invoice, InvoiceLine, StatusName
from gateway.shapes.payments import attempts_from_proto
from services.kit.errors import DomainError

PAGE_ROWS: Final = 50
# More are credited over the API.
CREDITED_LINES_MAX: Final = 100
STATUSES: Final = ("PENDING", "PAID", "FAILED", "VOID")


@get("/dashboard/invoices", include_in_schema=False)
async def list_invoices(visit: Visited) -> Response[bytes]:
    """What was billed, newest first."""
    query = visit.request.query_params
    status = query.get("status", "")
    request = invoicer_pb2.ListInvoicesRequest(
        customer_id=query.get("customerId", ""),
        status=invoices.status_number(cast("StatusName", status) if status in STATUSES else None),
        page_size=PAGE_ROWS,
        page_token=query.get("cursor", ""),
    )
    answer = await visit.calls.call(visit.calls.invoicer.ListInvoices, request)
    return visit.page(
        "invoices.html",
        invoices=[invoices.from_proto(each) for each in answer.invoices],
        statuses=STATUSES,
        chosen=status if status in STATUSES else "",
        cursor=answer.next_page_token,
    )


@get("/dashboard/invoices/{invoice_id:str}", include_in_schema=False)
async def show_invoice(visit: Visited, invoice_id: FromPath[str]) -> Response[bytes]:
    """One invoice; its lines unfold to how they came about and which events they are of."""
    return await _show(visit, invoice_id)


@get("/dashboard/invoices/{invoice_id:str}/lines/{line:str}", include_in_schema=False)
async def show_line(
    visit: Visited, invoice_id: FromPath[str], line: FromPath[str]
) -> Response[bytes]:
    """A line, how it came about, and the raw events behind it."""
    calls = visit.calls
    number = number_of_line(line)
    answer, events = await asyncio.gather(
        calls.call(
            calls.invoicer.GetInvoice, invoicer_pb2.GetInvoiceRequest(invoice_id=invoice_id)
        ),
        calls.call(
            calls.documents.ListLineEvents,
            documents_pb2.ListLineEventsRequest(
                invoice_id=invoice_id,
                line=number,
                page_size=PAGE_ROWS,
                page_token=visit.request.query_params.get("cursor", ""),
            ),
        ),
    )
    invoice = invoices.from_proto(answer.invoice)
    return visit.page(
        "invoice_line.html",
        invoice=invoice,
        number=number,
        line=invoice.lines[number - 1],
        events=line_events.page_from_proto(events),
    )


async def _show(visit: Visit, invoice_id: str, status: int = 200) -> Response[bytes]:
    calls = visit.calls
    answer, notes, payments = await asyncio.gather(
        calls.call(
            calls.invoicer.GetInvoice, invoicer_pb2.GetInvoiceRequest(invoice_id=invoice_id)
        ),
        calls.call(
            calls.terms.ListCreditNotes,
            billing_terms_pb2.ListCreditNotesRequest(invoice_id=invoice_id),
        ),
        calls.call(
            calls.payments.ListPaymentAttempts,
            payments_pb2.ListPaymentAttemptsRequest(invoice_id=invoice_id),
        ),
    )
    invoice = invoices.from_proto(answer.invoice)
    return visit.page(
        "invoice.html",
        status,
        invoice=invoice,
        credited=credited(invoice),
        credited_rows=_credited_rows(visit.form, invoice),
        credit_notes=[credit_notes.from_proto(each) for each in notes.credit_notes],
        payments=attempts_from_proto(payments),
        new_key=new_key(),
    )


@post("/dashboard/invoices/{invoice_id:str}/pay", include_in_schema=False)
async def pay_invoice(visit: Visited, invoice_id: FromPath[str]) -> Response[bytes]:
    """It was paid."""
    request = invoicer_pb2.PayInvoiceRequest(invoice_id=invoice_id)
    asked = visit.calls.call(visit.calls.invoicer.PayInvoice, request)
    return await _done(visit, invoice_id, asked, "paid")


@post("/dashboard/invoices/{invoice_id:str}/fail", include_in_schema=False)
async def fail_invoice(visit: Visited, invoice_id: FromPath[str]) -> Response[bytes]:
    """A payment failed."""
    request = invoicer_pb2.FailInvoiceRequest(invoice_id=invoice_id)
    asked = visit.calls.call(visit.calls.invoicer.FailInvoice, request)
    return await _done(visit, invoice_id, asked, "failed")


@post("/dashboard/invoices/{invoice_id:str}/collect", include_in_schema=False)
async def collect_invoice(visit: Visited, invoice_id: FromPath[str]) -> Response[bytes]:
    """Let the provider try now."""
    request = payments_pb2.CollectInvoiceRequest(invoice_id=invoice_id)
    asked = visit.calls.call(visit.calls.payments.CollectInvoice, request)
    return await _done(visit, invoice_id, asked, "collecting")


@post("/dashboard/invoices/{invoice_id:str}/void", include_in_schema=False)
async def void_invoice(visit: Visited, invoice_id: FromPath[str]) -> Response[bytes]:
    """It is none any more."""
    request = invoicer_pb2.VoidInvoiceRequest(invoice_id=invoice_id)
    asked = visit.calls.call(visit.calls.invoicer.VoidInvoice, request)
    return await _done(visit, invoice_id, asked, "voided")


@post("/dashboard/invoices/{invoice_id:str}/credit", include_in_schema=False)
async def credit_invoice(visit: Visited, invoice_id: FromPath[str]) -> Response[bytes]:
    """Credit amounts of some lines, or all that is left of it."""
    form = visit.form
    form.drop("lines", [row for row in form.indexes("lines") if not form.get(_amount(row))])
    try:
        note = form.read(NewCreditNote)
    except DomainError as error:
        return await _refused(visit, invoice_id, error)
    request = credit_notes.to_proto(invoice_id, note, visit.form.get("_key", ""))
    asked = visit.calls.call(visit.calls.terms.CreateCreditNote, request)
    return await _done(visit, invoice_id, asked, "credited")


async def _done(visit: Visit, invoice_id: str, asked: Awaitable[Any], note: str) -> Response[bytes]:
    """Do what is asked, and say so on the invoice's page, or why it was refused."""
    try:
        await asked
    except DomainError as error:
        return await _refused(visit, invoice_id, error)
    return visit.go(_path(invoice_id), note)


async def _refused(visit: Visit, invoice_id: str, error: DomainError) -> Response[bytes]:
    visit.form.refuse(error)
    return await _show(visit, invoice_id, 400)


def _amount(row: int) -> str:
    return f"lines[{row}].amount"


def credited(invoice: Invoice) -> Decimal:
    """What credit notes took off before it was paid."""
    return Decimal(invoice.amount) - Decimal(invoice.credits_applied) - Decimal(invoice.amount_due)


def _credited_rows(form: Form, invoice: Invoice) -> list[tuple[int, InvoiceLine, int]]:
    """Lines that can be credited: number, line, and the row of the form that is about it."""
    known = {form.get(f"lines[{row}].line"): row for row in form.indexes("lines")}
    # Taxes come along with what they are taxes of.
    taxes = {f"{tax.name} {tax.percent} %" for tax in invoice.taxes}
    return [
        (number, line, known.get(str(number), len(known) + number))
        for number, line in enumerate(invoice.lines[:CREDITED_LINES_MAX], 1)
        if Decimal(line.amount) > 0 and line.description not in taxes
    ]


def _path(invoice_id: str) -> str:
    return f"/dashboard/invoices/{quote(invoice_id, safe='')}"


HANDLERS = [
    list_invoices,
    show_invoice,
    show_line,
    pay_invoice,
    fail_invoice,
    collect_invoice,
    void_invoice,
    credit_invoice,
]
