"""/dashboard/team"""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.accounts.v1 import members_pb2

from gateway.dashboard.visit import Visit, Visited
from gateway.shapes import members, people
from gateway.shapes.people import MemberChange, NewInvitation
from services.kit.errors import DomainError
from services.kit.pages import PAGE_SIZE_MAX

ROLES: Final = (
    ("VIEWER", "Viewer: reads"),
    ("DEVELOPER", "Developer: API keys, webhooks, integrations"),
    ("ADMIN", "Admin: metrics, plans, billing, settings, invitations"),
    ("OWNER", "Owner: everything"),
)


@get("/dashboard/team", include_in_schema=False)
async def show_team(visit: Visited) -> Response[bytes]:
    """Who works here, who is invited, and where the viewer is signed in."""
    return await _show(visit)


@post("/dashboard/team/invitations", include_in_schema=False)
async def invite(visit: Visited) -> Response[bytes]:
    """Invite somebody by a link, which is shown only on the page that answers."""
    try:
        request = people.invitation_to_proto(visit.form.read(NewInvitation))
        answer = await visit.calls.call(visit.calls.members.CreateInvitation, request)
    except DomainError as error:
        visit.form.refuse(error)
        return await _show(visit, 400)
    made = people.with_url(answer, visit.base_url)
    return visit.page("invitation_made.html", made=made)


@post("/dashboard/team/invitations/{invitation_id:str}/revoke", include_in_schema=False)
async def revoke_invitation(visit: Visited, invitation_id: FromPath[str]) -> Response[bytes]:
    """Take an invitation back."""
    request = members_pb2.RevokeInvitationRequest(
        invitation_id=invitation_id, if_match=visit.form.if_match
    )
    asked = visit.calls.call(visit.calls.members.RevokeInvitation, request)
    return await _done(visit, asked, "deleted")


@post("/dashboard/team/members/{member_id:str}/role", include_in_schema=False)
async def change_role(visit: Visited, member_id: FromPath[str]) -> Response[bytes]:
    """Let a member do more, or less."""
    request = people.change_to_proto(member_id, visit.form.read(MemberChange))
    request.if_match.extend(visit.form.if_match)
    asked = visit.calls.call(visit.calls.members.UpdateMember, request)
    return await _done(visit, asked, "saved")


@post("/dashboard/team/members/{member_id:str}/remove", include_in_schema=False)
async def remove_member(visit: Visited, member_id: FromPath[str]) -> Response[bytes]:
    """Take a member out of the organization, at once."""
    request = members_pb2.RemoveMemberRequest(member_id=member_id, if_match=visit.form.if_match)
    asked = visit.calls.call(visit.calls.members.RemoveMember, request)
    return await _done(visit, asked, "removed")


@post("/dashboard/team/sessions/{session_id:str}/revoke", include_in_schema=False)
async def revoke_session(visit: Visited, session_id: FromPath[str]) -> Response[bytes]:
    """Sign the viewer out somewhere."""
    request = members_pb2.RevokeSessionRequest(session_id=session_id)
    asked = visit.calls.call(visit.calls.members.RevokeSession, request)
    return await _done(visit, asked, "signed-out")


async def _done(visit: Visit, asked: Awaitable[Any], note: str) -> Response[bytes]:
    """Do what is asked, and say so, or why it was refused."""
    try:
        await asked
    except DomainError as error:
        return await _show(visit, visit.form.refuse(error))
    return visit.go("/dashboard/team", note)


async def _show(visit: Visit, status: int = 200) -> Response[bytes]:
    calls = visit.calls
    listed, invited, sessions = await asyncio.gather(
        calls.call(
            calls.members.ListMembers, members_pb2.ListMembersRequest(page_size=PAGE_SIZE_MAX)
        ),
        calls.call(
            calls.members.ListInvitations,
            members_pb2.ListInvitationsRequest(page_size=PAGE_SIZE_MAX),
        ),
        calls.call(
            calls.members.ListSessions, members_pb2.ListSessionsRequest(page_size=PAGE_SIZE_MAX)
        ),
    )
    invitations = [people.invitation_from_proto(each) for each in invited.invitations]
    return visit.page(
        "team.html",
        status,
        members=[members.member_from_proto(each) for each in listed.members],
        invitations=[each for each in invitations if each.status == "OPEN"],
        etags={each.id: each.etag for each in listed.members}
        | {each.id: each.etag for each in invited.invitations},
        sessions=[members.session_from_proto(each) for each in sessions.sessions],
        roles=ROLES,
    )


HANDLERS = [
    show_team,
    invite,
    revoke_invitation,
    change_role,
    remove_member,
    revoke_session,
]
