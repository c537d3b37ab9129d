"""/api/events"""

from litestar import Response, get, post
from litestar.params import FromPath, JSONBody
from usageflow.ingest.v1 import ingest_pb2 as pb

from gateway.calls import ApiCalls
from gateway.query import Asked, query
from gateway.shapes.events import (
    NO_REASON,
    Event,
    EventPage,
    EventsQuery,
    VoidRequest,
    from_proto,
    to_proto,
)
from services.kit.errors import NotFoundError


@get("/api/events", dependencies=query(EventsQuery))
async def list_events(calls: ApiCalls, asked: Asked[EventsQuery]) -> EventPage:
    """List raw events, newest first by when they happened."""
    answer = await calls.call(calls.ingest.ListEvents, to_proto(asked))
    return EventPage(
        data=[from_proto(event) for event in answer.events],
        next_cursor=answer.next_page_token or None,
    )


@get("/api/events/{event_id:str}")
async def get_event(calls: ApiCalls, event_id: FromPath[str]) -> Event:
    """One raw event."""
    answer = await calls.call(calls.ingest.GetEvent, pb.GetEventRequest(event_id=event_id))
    return from_proto(answer.event)


@post("/api/events/{event_id:str}/void", status_code=200)
async def void_event(
    calls: ApiCalls, event_id: FromPath[str], data: JSONBody[VoidRequest] = NO_REASON
) -> Response[Event]:
    """Take an event out of what is billed; repeating it changes nothing.

    An event that was invoiced already becomes a credit on the next invoice. Its idempotency key
    stays used: a correction is a void, and an event with another key.
    """
    request = pb.VoidEventsRequest(event_ids=[event_id], reason=data.reason)
    answer = await calls.call(calls.ingest.VoidEvents, request)
    if answer.receipts[0].status == pb.VOID_STATUS_NOT_FOUND:
        raise NotFoundError("No such event")
    found = await calls.call(calls.ingest.GetEvent, pb.GetEventRequest(event_id=event_id))
    token = {"usage-token": answer.usage_token} if answer.usage_token else {}
    return Response(from_proto(found.event), headers=token)


HANDLERS = [list_events, get_event, void_event]
