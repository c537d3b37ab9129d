"""/api/members, /api/invitations, and what members change of themselves"""

from typing import Any

from litestar import Request, Response, delete, get, patch, post, put
from litestar.params import FromPath, JSONBody
from usageflow.accounts.v1 import members_pb2 as pb

from gateway.calls import ApiCalls
from gateway.preconditions import IfMatch, etag, tags_of
from gateway.query import Asked, query
from gateway.sessions import scope_of, sessions_of
from gateway.shapes.common import PageQuery
from gateway.shapes.members import Member, member_from_proto
from gateway.shapes.people import (
    Invitation,
    InvitationPage,
    InvitationWithUrl,
    MemberChange,
    MemberPage,
    NewInvitation,
    NewPassword,
    OwnChange,
    change_to_proto,
    invitation_from_proto,
    invitation_to_proto,
    own_change_to_proto,
    with_url,
)


@patch("/api/sessions/current")
async def change_current_member(calls: ApiCalls, data: JSONBody[OwnChange]) -> Member:
    """Change the calling member's own name and address. With an API key: 403."""
    answer = await calls.call(calls.members.UpdateCurrentMember, own_change_to_proto(data))
    return member_from_proto(answer.member)


@put("/api/sessions/current/password")
async def set_password(calls: ApiCalls, data: JSONBody[NewPassword]) -> Member:
    """Set the calling member's own password; their other sessions end. With an API key: 403."""
    request = pb.SetPasswordRequest(password=data.password, current_password=data.current_password)
    return member_from_proto((await calls.call(calls.members.SetPassword, request)).member)


@get("/api/members", dependencies=query(PageQuery))
async def list_members(calls: ApiCalls, asked: Asked[PageQuery]) -> MemberPage:
    """List the members of the organization, newest first."""
    request = pb.ListMembersRequest(page_size=asked.limit, page_token=asked.cursor)
    answer = await calls.call(calls.members.ListMembers, request)
    return MemberPage(
        data=[member_from_proto(member) for member in answer.members],
        next_cursor=answer.next_page_token or None,
    )


@get("/api/members/{member_id:str}")
async def get_member(calls: ApiCalls, member_id: FromPath[str]) -> Response[Member]:
    """One member of the organization."""
    request = pb.GetMemberRequest(member_id=member_id)
    return _shown((await calls.call(calls.members.GetMember, request)).member)


@patch("/api/members/{member_id:str}")
async def change_member(
    calls: ApiCalls,
    member_id: FromPath[str],
    data: JSONBody[MemberChange],
    if_match: IfMatch = None,
) -> Response[Member]:
    """Change a member's name, address or role; role OWNER. The last owner stays one: 409."""
    request = change_to_proto(member_id, data)
    request.if_match.extend(tags_of(if_match))
    return _shown((await calls.call(calls.members.UpdateMember, request)).member)


@delete("/api/members/{member_id:str}")
async def remove_member(
    calls: ApiCalls, member_id: FromPath[str], if_match: IfMatch = None
) -> None:
    """Take a member out of the organization, at once; role OWNER. The last owner stays: 409."""
    request = pb.RemoveMemberRequest(member_id=member_id, if_match=tags_of(if_match))
    await calls.call(calls.members.RemoveMember, request)


@post("/api/invitations")
async def create_invitation(
    request: Request[Any, Any, Any], calls: ApiCalls, data: JSONBody[NewInvitation]
) -> InvitationWithUrl:
    """Invite somebody by a link to pass on; roles OWNER and ADMIN, of owners only OWNER.

    The link works once, within a week. An open invitation of the same address is replaced.
    """
    answer = await calls.call(calls.members.CreateInvitation, invitation_to_proto(data))
    return with_url(answer, sessions_of(request).base_url(scope_of(request)))


@get("/api/invitations", dependencies=query(PageQuery))
async def list_invitations(calls: ApiCalls, asked: Asked[PageQuery]) -> InvitationPage:
    """List invitations, newest first."""
    request = pb.ListInvitationsRequest(page_size=asked.limit, page_token=asked.cursor)
    answer = await calls.call(calls.members.ListInvitations, request)
    return InvitationPage(
        data=[invitation_from_proto(invitation) for invitation in answer.invitations],
        next_cursor=answer.next_page_token or None,
    )


@get("/api/invitations/{invitation_id:str}")
async def get_invitation(calls: ApiCalls, invitation_id: FromPath[str]) -> Response[Invitation]:
    """One invitation, without its link."""
    request = pb.FindInvitationRequest(invitation_id=invitation_id)
    found = (await calls.call(calls.members.FindInvitation, request)).invitation
    return Response(invitation_from_proto(found), headers=etag(found))


@delete("/api/invitations/{invitation_id:str}")
async def revoke_invitation(
    calls: ApiCalls, invitation_id: FromPath[str], if_match: IfMatch = None
) -> None:
    """Take an invitation back; repeating it changes nothing. Roles OWNER and ADMIN."""
    request = pb.RevokeInvitationRequest(invitation_id=invitation_id, if_match=tags_of(if_match))
    await calls.call(calls.members.RevokeInvitation, request)


def _shown(member: pb.Member) -> Response[Member]:
    return Response(member_from_proto(member), headers=etag(member))


HANDLERS = [
    change_current_member,
    set_password,
    list_members,
    get_member,
    change_member,
    remove_member,
    create_invitation,
    list_invitations,
    get_invitation,
    revoke_invitation,
]
