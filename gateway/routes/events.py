"""/api/events"""

from litestar import get
from litestar.params import FromPath
from usageflow.ingest.v1 import ingest_pb2 as pb

from gateway.calls import ApiCalls
from gateway.query import Asked, query
from gateway.shapes.events import Event, EventPage, EventsQuery, from_proto, to_proto


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


HANDLERS = [list_events, get_event]
