"""/dashboard/team"""

import asyncio

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.accounts.v1 import members_pb2

from gateway.dashboard.visit import Visited
from gateway.shapes import members
from services.kit.pages import PAGE_SIZE_MAX


@get("/dashboard/team", include_in_schema=False)
async def show_team(visit: Visited) -> Response[bytes]:
    """Who the viewer is here, and where they are signed in."""
    calls = visit.calls
    current, sessions = await asyncio.gather(
        calls.call(calls.members.GetCurrentMember, members_pb2.GetCurrentMemberRequest()),
        calls.call(
            calls.members.ListSessions, members_pb2.ListSessionsRequest(page_size=PAGE_SIZE_MAX)
        ),
    )
    return visit.page(
        "team.html",
        member=members.member_from_proto(current.member),
        sessions=[members.session_from_proto(each) for each in sessions.sessions],
    )


@post("/dashboard/team/sessions/{session_id:str}/revoke", include_in_schema=False)
async def revoke_session(visit: Visited, session_id: FromPath[str]) -> Response[bytes]:
    """Sign the viewer out somewhere."""
    request = members_pb2.RevokeSessionRequest(session_id=session_id)
    await visit.calls.call(visit.calls.members.RevokeSession, request)
    return visit.go("/dashboard/team", "signed-out")


HANDLERS = [show_team, revoke_session]
