"""/api/sessions"""

from typing import Any

from litestar import Request, delete, get
from litestar.params import FromPath
from usageflow.accounts.v1 import members_pb2 as pb

from gateway.calls import ApiCalls
from gateway.query import Asked, query
from gateway.sessions import viewer
from gateway.shapes.common import PageQuery
from gateway.shapes.members import (
    CurrentSession,
    SessionPage,
    current_from_proto,
    session_from_proto,
)


@get("/api/sessions/current")
async def get_current_session(request: Request[Any, Any, Any], calls: ApiCalls) -> CurrentSession:
    """Who has signed in: for programs in a browser. With an API key: 403."""
    answer = await calls.call(calls.members.GetCurrentMember, pb.GetCurrentMemberRequest())
    return current_from_proto(answer, await viewer(request))


@get("/api/sessions", dependencies=query(PageQuery))
async def list_sessions(calls: ApiCalls, asked: Asked[PageQuery]) -> SessionPage:
    """List where the calling member is signed in, newest first. With an API key: 403."""
    request = pb.ListSessionsRequest(page_size=asked.limit, page_token=asked.cursor)
    answer = await calls.call(calls.members.ListSessions, request)
    return SessionPage(
        data=[session_from_proto(session) for session in answer.sessions],
        next_cursor=answer.next_page_token or None,
    )


@delete("/api/sessions/{session_id:str}")
async def revoke_session(calls: ApiCalls, session_id: FromPath[str]) -> None:
    """End one of the calling member's sessions; repeating it changes nothing."""
    await calls.call(calls.members.RevokeSession, pb.RevokeSessionRequest(session_id=session_id))


HANDLERS = [get_current_session, list_sessions, revoke_session]
