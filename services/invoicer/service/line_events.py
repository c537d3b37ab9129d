"""From a line to the raw events behind it."""

from collections.abc import Sequence
from dataclasses import dataclass

from usageflow.ingest.v1 import counted_pb2

from services.invoicer.domain import InvoiceLine, LineKind
from services.invoicer.line_events import CountedUsage, EventSource
from services.invoicer.repository import readings
from services.invoicer.service.locking import require_invoice
from services.invoicer.service.paging import Page
from services.kit import pages
from services.kit.database import Database, TenantKey
from services.kit.errors import NotFoundError

_OF_USAGE = (LineKind.USAGE, LineKind.LATE_USAGE)


@dataclass(frozen=True, slots=True)
class LineEventsPage:
    """Events, newest first, and the next page's token ("" after the last).

    `exact`: they are known to be those that were counted; otherwise those that were accepted before
    the invoice was written. `complete`: retention has dropped none of them; when it has dropped
    others of the organization in the line's period, that is not known.
    """

    events: Sequence[counted_pb2.CountedEvent]
    next_page_token: str
    exact: bool
    complete: bool


class LineEvents:
    """What lines rest on."""

    def __init__(self, database: Database, events: EventSource) -> None:
        self._database = database
        self._events = events

    async def list_line_events(
        self, tenant: TenantKey, invoice_id: str, number: int, page: Page
    ) -> LineEventsPage:
        """A page of the events behind line `number`, from 1; NotFoundError."""
        limit = pages.page_limit(page.size)
        async with self._database.transaction() as connection:
            invoice = await require_invoice(connection, tenant, invoice_id)
            line = _line(invoice.lines, number)
            if line.kind not in _OF_USAGE:
                return LineEventsPage((), "", exact=True, complete=True)
            until = await readings.reading_of(connection, tenant, invoice.id)
            since = None
            if line.kind is LineKind.LATE_USAGE:
                since = await readings.last_billed(connection, tenant, invoice.id, line)
        billed = None if since is None else since.counted
        wanted = CountedUsage(invoice.customer_id, line.metric, line.period, until.counted, billed)
        found = await self._events.list_counted(tenant, wanted, limit, page.token)
        exact = until.exact and (since is None or since.exact)
        return LineEventsPage(found.events, found.next_token, exact, complete=not found.dropped)


def _line(lines: Sequence[InvoiceLine], number: int) -> InvoiceLine:
    if not 1 <= number <= len(lines):
        raise NotFoundError("No such line")
    return lines[number - 1]
