"""/dashboard/events"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias
from urllib.parse import quote
from zoneinfo import ZoneInfo

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.ingest.v1 import ingest_pb2
from usageflow.invoicer.v1 import documents_pb2

from gateway.dashboard import questions
from gateway.dashboard.text import indented
from gateway.dashboard.visit import Visit, Visited
from gateway.shapes import events
from gateway.shapes.events import Event, EventsQuery
from gateway.shapes.invoices import Invoice
from gateway.shapes.usage import UsageQuery
from services.kit.errors import DomainError, InvalidArgumentError
from services.kit.pages import PAGE_SIZE_MAX

Standing: TypeAlias = Literal["IN", "OUT", "NOT", "UNCLEAR"]

PAGE_ROWS: Final = 50
# Of a line's events, that an event is looked for among; after them times of acceptance decide.
LINE_PAGES_MAX: Final = 10
_LOCAL_TIME: Final = "%Y-%m-%dT%H:%M"


@dataclass(frozen=True, slots=True)
class Billed:
    """A line of an invoice; its number counts from 1."""

    invoice: Invoice
    line: int


@dataclass(frozen=True, slots=True)
class Billing:
    """Where an event was billed, and where it was taken off again after it was voided."""

    billed: Billed | None
    taken_out: Billed | None


@get("/dashboard/events", include_in_schema=False)
async def search_events(visit: Visited) -> Response[bytes]:
    """The newest events, or those that the filters let through."""
    query = visit.request.query_params
    if wanted := query.get("id", "").strip():
        return visit.go(_path(wanted))
    metrics = await questions.all_metrics(visit.calls)
    try:
        asked = EventsQuery(
            customer_id=query.get("customerId", ""),
            metric=query.get("metric", ""),
            idempotency_key=query.get("idempotencyKey", ""),
            from_=_local(query.get("from", ""), visit.zone),
            to=_local(query.get("to", ""), visit.zone),
            limit=PAGE_ROWS,
            cursor=query.get("cursor", ""),
        )
        answer = await visit.calls.call(visit.calls.ingest.ListEvents, events.to_proto(asked))
    except InvalidArgumentError as error:
        return visit.page("events.html", 400, metrics=metrics, events=[], cursor="", refused=error)
    return visit.page(
        "events.html",
        metrics=metrics,
        events=[events.from_proto(each) for each in answer.events],
        cursor=answer.next_page_token,
        refused=None,
        filtered=any(
            query.get(name) for name in ("customerId", "metric", "idempotencyKey", "from", "to")
        ),
    )


@get("/dashboard/events/{event_id:str}", include_in_schema=False)
async def show_event(visit: Visited, event_id: FromPath[str]) -> Response[bytes]:
    """One event and its way: accepted, aggregated, invoiced."""
    return await _show(visit, event_id)


async def _show(visit: Visit, event_id: str, status: int = 200) -> Response[bytes]:
    request = ingest_pb2.GetEventRequest(event_id=event_id)
    event = events.from_proto((await visit.calls.call(visit.calls.ingest.GetEvent, request)).event)
    usage = await questions.found(
        questions.ask_usage(visit.calls, UsageQuery(metric=event.metric, from_=visit.today))
    )
    return visit.page(
        "event.html",
        status,
        event=event,
        counted=usage is not None and usage.as_of > event.accepted_at,
        billing=await _billing(visit, event),
        metadata=indented(bytes(event.metadata).decode()),
        has_metadata=bool(msgspec.json.decode(event.metadata)),
    )


@post("/dashboard/events/{event_id:str}/void", include_in_schema=False)
async def void_event(visit: Visited, event_id: FromPath[str]) -> Response[bytes]:
    """Take it out of what is billed."""
    request = ingest_pb2.VoidEventsRequest(
        event_ids=[event_id], reason=visit.form.get("reason", "")
    )
    try:
        await visit.calls.call(visit.calls.ingest.VoidEvents, request)
    except DomainError as error:
        visit.form.refuse(error)
        return await _show(visit, event_id, 400)
    return visit.go(_path(event_id), "voided")


async def _billing(visit: Visit, event: Event) -> Billing:
    """On which invoices the event is, of those whose lines cover its metric and time."""
    if event.customer_id is None:
        return Billing(None, None)
    made = await questions.invoices_since(visit.calls, event.timestamp, event.customer_id)
    billed = taken_out = unclear = None
    for place in covering(made, event.metric, event.timestamp):
        match await _standing(visit, event, place):
            case "IN":
                billed = billed or place
            case "OUT":
                taken_out = place
            case "UNCLEAR" if place.invoice.created_at and (
                event.accepted_at < place.invoice.created_at
            ):
                unclear = unclear or place
    return Billing(billed or unclear, taken_out)


def covering(invoices: Sequence[Invoice], metric: str, time: datetime) -> list[Billed]:
    """The lines of the metric whose period holds `time`, of invoices that are not void.

    Oldest first: `invoices` are newest first.
    """
    return [
        Billed(invoice, number)
        for invoice in reversed(invoices)
        if invoice.status != "VOID"
        for number, line in enumerate(invoice.lines, 1)
        if line.metric == metric
        and line.period_start
        and line.period_end
        and line.period_start <= time < line.period_end
    ]


async def _standing(visit: Visit, event: Event, place: Billed) -> Standing:
    """Whether the event is behind the line, or was taken out with it."""
    token = ""
    for _ in range(LINE_PAGES_MAX):
        answer = await visit.calls.call(
            visit.calls.documents.ListLineEvents,
            documents_pb2.ListLineEventsRequest(
                invoice_id=place.invoice.id or "",
                line=place.line,
                page_size=PAGE_SIZE_MAX,
                page_token=token,
            ),
        )
        for each in answer.events:
            if each.event.event_id == event.id:
                return "OUT" if each.taken_out else "IN"
        token = answer.next_page_token
        if not token:
            return "NOT"
    return "UNCLEAR"


def _local(text: str, zone: ZoneInfo) -> datetime | None:
    """The instant that a field for local date and time says; what it can't say counts as none."""
    try:
        return datetime.strptime(text[:16], _LOCAL_TIME).replace(tzinfo=zone)
    except ValueError:
        return None


def _path(event_id: str) -> str:
    return f"/dashboard/events/{quote(event_id, safe='')}"


HANDLERS = [search_events, show_event, void_event]
