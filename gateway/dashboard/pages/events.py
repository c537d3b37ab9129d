"""/dashboard/events"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import quote
from zoneinfo import ZoneInfo

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.ingest.v1 import ingest_pb2

from gateway.dashboard import questions
from gateway.dashboard.text import indented
from gateway.dashboard.visit import Visit, Visited
from gateway.shapes import events
from gateway.shapes.events import Event, EventsQuery
from gateway.shapes.invoices import Invoice
from gateway.shapes.usage import UsageQuery
from services.kit.errors import DomainError, InvalidArgumentError

PAGE_ROWS: Final = 50
_LOCAL_TIME: Final = "%Y-%m-%dT%H:%M"


@dataclass(frozen=True, slots=True)
class Billed:
    """Where an event is billed: the invoice and the number of its line, from 1."""

    invoice: Invoice
    line: int


@get("/dashboard/events", include_in_schema=False)
async def search_events(visit: Visited) -> Response[bytes]:
    """The newest events, or those that the filters let through."""
    query = visit.request.query_params
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
        billed=await _billed(visit, event),
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
    return visit.go(f"/dashboard/events/{quote(event_id, safe='')}", "voided")


async def _billed(visit: Visit, event: Event) -> Billed | None:
    """The invoice with the line that covers the event's metric and time, if there is one yet."""
    if event.customer_id is None or event.voided_at is not None:
        return None
    made = await questions.invoices_since(visit.calls, event.timestamp, event.customer_id)
    return covering(made, event.metric, event.timestamp)


def covering(invoices: Sequence[Invoice], metric: str, time: datetime) -> Billed | None:
    """The newest invoice, not void, with a line of the metric whose period holds `time`."""
    for invoice in invoices:
        for number, line in enumerate(invoice.lines, 1):
            if invoice.status == "VOID" or line.metric != metric:
                continue
            if (
                line.period_start
                and line.period_end
                and line.period_start <= time < line.period_end
            ):
                return Billed(invoice, number)
    return None


def _local(text: str, zone: ZoneInfo) -> datetime | None:
    """The instant that a field for local date and time says; what it can't say counts as none."""
    try:
        return datetime.strptime(text[:16], _LOCAL_TIME).replace(tzinfo=zone)
    except ValueError:
        return None


HANDLERS = [search_events, show_event, void_event]
