"""Invoices and their lines as CSV (RFC 4180) or JSON lines, a page at a time: they are never in
memory as a whole.

What fails later than the first page ends the stream without its end, which clients take for a
broken transfer: it never looks whole.
"""

from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
from usageflow.invoicer.v1 import invoicer_pb2 as pb

from gateway.calls import Calls
from gateway.shapes.invoices import Invoice, InvoiceLine, from_proto
from gateway.usage_csv import csv_lines, csv_time

PAGE_INVOICES = 100
_INVOICE_COLUMNS = (
    "invoiceId",
    "number",
    "status",
    "customerId",
    "subscriptionId",
    "currency",
    "invoiceAmount",
    "creditsApplied",
    "amountDue",
    "periodStart",
    "periodEnd",
    "createdAt",
)
_LINE_COLUMNS = (
    "line",
    "description",
    "metric",
    "quantity",
    "includedUnits",
    "unitPrice",
    "amount",
    "linePeriodStart",
    "linePeriodEnd",
)


async def export_csv(calls: Calls, request: pb.ListInvoicesRequest) -> AsyncIterator[bytes]:
    """A row for each line; the first page is read before this returns. DomainError."""
    header = csv_lines([[*_INVOICE_COLUMNS, *_LINE_COLUMNS]])
    return _pages(calls, request, await _page(calls, request), _rows, header)


async def export_json_lines(calls: Calls, request: pb.ListInvoicesRequest) -> AsyncIterator[bytes]:
    """A line of JSON for each invoice; the first page is read before this returns. DomainError."""
    return _pages(calls, request, await _page(calls, request), _json_lines, b"")


async def _page(calls: Calls, request: pb.ListInvoicesRequest) -> pb.ListInvoicesResponse:
    request.page_size = PAGE_INVOICES
    return await calls.call(calls.invoicer.ListInvoices, request)


async def _pages(
    calls: Calls,
    request: pb.ListInvoicesRequest,
    page: pb.ListInvoicesResponse,
    write: Callable[[Sequence[Invoice]], bytes],
    header: bytes,
) -> AsyncIterator[bytes]:
    if header:
        yield header
    while True:
        yield write([from_proto(invoice) for invoice in page.invoices])
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
        page = await _page(calls, request)


def _json_lines(invoices: Sequence[Invoice]) -> bytes:
    return b"".join(msgspec.json.encode(invoice) + b"\n" for invoice in invoices)


def _rows(invoices: Sequence[Invoice]) -> bytes:
    return csv_lines(
        [*_invoice_cells(invoice), *_line_cells(number, line)]
        for invoice in invoices
        for number, line in enumerate(invoice.lines, start=1)
    )


def _invoice_cells(invoice: Invoice) -> list[str]:
    times = (invoice.period_start, invoice.period_end, invoice.created_at)
    return [
        invoice.id or "",
        invoice.number or "",
        invoice.status,
        invoice.customer_id,
        invoice.subscription_id or "",
        invoice.currency,
        str(invoice.amount),
        str(invoice.credits_applied),
        str(invoice.amount_due),
        *("" if time is None else csv_time(time) for time in times),
    ]


def _line_cells(number: int, line: InvoiceLine) -> list[str]:
    times = (line.period_start, line.period_end)
    return [
        str(number),
        line.description,
        line.metric or "",
        str(line.quantity),
        str(line.included_units),
        str(line.unit_price),
        str(line.amount),
        *("" if time is None else csv_time(time) for time in times),
    ]
