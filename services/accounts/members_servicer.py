"""Translates between proto and domain, for members and their sessions."""

from dataclasses import dataclass

from google.protobuf.message import Message
from usageflow.accounts.v1 import accounts_pb2
from usageflow.accounts.v1 import members_pb2 as pb
from usageflow.accounts.v1.members_pb2_grpc import (
    MembersInternalServiceServicer,
    MembersServiceServicer,
)

from services.accounts.invitations import Invitations
from services.accounts.invitations_repository import Invitation
from services.accounts.keys import principal_of_session
from services.accounts.members import MemberChange, Members
from services.accounts.people import Member, Seen, Session
from services.accounts.portal import Portals
from services.accounts.proto import organization_message, timestamp
from services.accounts.service import Accounts
from services.accounts.signing_in import SigningIn
from services.kit.auth import (
    MODE_NAMES,
    ROLE_NAMES,
    ROLE_NUMBERS,
    current_principal,
    require_scope,
)
from services.kit.errors import FieldProblem, InvalidArgumentError
from services.kit.etag import expecting, tagged


@dataclass(frozen=True, slots=True)
class People:
    """The use cases that the servicers here serve."""

    accounts: Accounts
    signing_in: SigningIn
    members: Members
    invitations: Invitations
    portals: Portals


class MembersServicer(MembersServiceServicer):
    """What members may do; kit.permissions has looked at their role."""

    def __init__(self, people: People) -> None:
        self._accounts = people.accounts
        self._signing_in = people.signing_in
        self._members = people.members
        self._invitations = people.invitations

    async def GetCurrentMember(
        self, request: pb.GetCurrentMemberRequest, context: object
    ) -> pb.GetCurrentMemberResponse:
        """Who is calling."""
        principal = current_principal()
        member = await self._members.get(principal.organization_id, principal.member_id)
        organization = await self._accounts.get_organization(principal.organization_id)
        return pb.GetCurrentMemberResponse(
            member=member_message(member), organization=organization_message(organization)
        )

    async def ListSessions(
        self, request: pb.ListSessionsRequest, context: object
    ) -> pb.ListSessionsResponse:
        """A page of where the caller is signed in."""
        principal = current_principal()
        sessions, next_page_token = await self._signing_in.list_sessions(
            principal.member_id, request.page_size, request.page_token
        )
        return pb.ListSessionsResponse(
            sessions=[_session(session, principal.session_id) for session in sessions],
            next_page_token=next_page_token,
        )

    async def RevokeSession(
        self, request: pb.RevokeSessionRequest, context: object
    ) -> pb.RevokeSessionResponse:
        """End one of the caller's sessions."""
        await self._signing_in.revoke(current_principal().member_id, request.session_id)
        return pb.RevokeSessionResponse()

    async def UpdateCurrentMember(
        self, request: pb.UpdateCurrentMemberRequest, context: object
    ) -> pb.UpdateCurrentMemberResponse:
        """Change the caller's own name and address."""
        principal = current_principal()
        change = MemberChange(**_given(request, "name", "email"))
        member = await self._members.change(principal, principal.member_id, change)
        return pb.UpdateCurrentMemberResponse(member=member_message(member))

    async def SetPassword(
        self, request: pb.SetPasswordRequest, context: object
    ) -> pb.SetPasswordResponse:
        """Set the caller's own password."""
        member = await self._members.set_password(
            current_principal(), request.password, request.current_password
        )
        return pb.SetPasswordResponse(member=member_message(member))

    async def ListMembers(
        self, request: pb.ListMembersRequest, context: object
    ) -> pb.ListMembersResponse:
        """A page of the organization's members; of keys the scope read."""
        members, next_page_token = await self._members.list(
            require_scope("read").organization_id, request.page_size, request.page_token
        )
        return pb.ListMembersResponse(
            members=[member_message(member) for member in members],
            next_page_token=next_page_token,
        )

    async def GetMember(
        self, request: pb.GetMemberRequest, context: object
    ) -> pb.GetMemberResponse:
        """One of the organization's members; of keys the scope read."""
        member = await self._members.get(require_scope("read").organization_id, request.member_id)
        return pb.GetMemberResponse(member=member_message(member))

    async def UpdateMember(
        self, request: pb.UpdateMemberRequest, context: object
    ) -> pb.UpdateMemberResponse:
        """Change a member."""
        given = _given(request, "name", "email")
        if request.HasField("role"):
            given["role"] = _role(request.role)
        member = await self._members.change(
            current_principal(),
            request.member_id,
            MemberChange(**given),
            expect=expecting(request.if_match, member_message),
        )
        return pb.UpdateMemberResponse(member=member_message(member))

    async def RemoveMember(
        self, request: pb.RemoveMemberRequest, context: object
    ) -> pb.RemoveMemberResponse:
        """Take a member out of the organization."""
        expect = expecting(request.if_match, member_message)
        await self._members.remove(current_principal(), request.member_id, expect=expect)
        return pb.RemoveMemberResponse()

    async def CreateInvitation(
        self, request: pb.CreateInvitationRequest, context: object
    ) -> pb.CreateInvitationResponse:
        """Invite somebody."""
        invitation, token = await self._invitations.create(
            current_principal(), request.email, _role(request.role)
        )
        return pb.CreateInvitationResponse(invitation=_invitation(invitation), token=token)

    async def ListInvitations(
        self, request: pb.ListInvitationsRequest, context: object
    ) -> pb.ListInvitationsResponse:
        """A page of the organization's invitations; of keys the scope read."""
        found, next_page_token = await self._invitations.list(
            require_scope("read").organization_id, request.page_size, request.page_token
        )
        return pb.ListInvitationsResponse(
            invitations=[_invitation(each) for each in found], next_page_token=next_page_token
        )

    async def FindInvitation(
        self, request: pb.FindInvitationRequest, context: object
    ) -> pb.FindInvitationResponse:
        """One of the organization's invitations; of keys the scope read."""
        found = await self._invitations.get(
            require_scope("read").organization_id, request.invitation_id
        )
        return pb.FindInvitationResponse(invitation=_invitation(found))

    async def RevokeInvitation(
        self, request: pb.RevokeInvitationRequest, context: object
    ) -> pb.RevokeInvitationResponse:
        """Take an invitation back."""
        invitation = await self._invitations.revoke(
            current_principal(),
            request.invitation_id,
            expect=expecting(request.if_match, _invitation),
        )
        return pb.RevokeInvitationResponse(invitation=_invitation(invitation))


class MembersInternalServicer(MembersInternalServiceServicer):
    """What UsageFlow's own processes may do; the interceptor has checked the internal token."""

    def __init__(self, people: People) -> None:
        self._signing_in = people.signing_in
        self._invitations = people.invitations

    async def CreateSignInLink(
        self, request: pb.CreateSignInLinkRequest, context: object
    ) -> pb.CreateSignInLinkResponse:
        """A link that signs a member in once."""
        member, token, expire_time = await self._signing_in.create_link(
            request.organization_id, request.email, default_email=request.default_email
        )
        return pb.CreateSignInLinkResponse(
            member=member_message(member), token=token, expire_time=timestamp(expire_time)
        )

    async def SignIn(self, request: pb.SignInRequest, context: object) -> pb.SignInResponse:
        """Begin a session."""
        seen = Seen(request.address, request.user_agent)
        if request.link_token:
            _require_nothing_else(request)
            member, session, token = await self._signing_in.by_link(request.link_token, seen)
        else:
            member, session, token = await self._signing_in.by_password(
                request.email, request.password, seen, organization_id=request.organization_id
            )
        return pb.SignInResponse(
            token=token,
            member=member_message(member),
            organization_id=member.organization_id,
            expire_time=timestamp(session.expire_time),
        )

    async def ResolveSession(
        self, request: pb.ResolveSessionRequest, context: object
    ) -> pb.ResolveSessionResponse:
        """Who a session stands for."""
        mode = MODE_NAMES.get(request.mode)
        if mode is None:
            raise InvalidArgumentError([FieldProblem("mode", "must be live or test")])
        resolved = await self._signing_in.resolve(request.token)
        return pb.ResolveSessionResponse(principal=principal_of_session(resolved, mode))

    async def EndSession(
        self, request: pb.EndSessionRequest, context: object
    ) -> pb.EndSessionResponse:
        """Sign out."""
        await self._signing_in.end(request.token)
        return pb.EndSessionResponse()

    async def GetInvitation(
        self, request: pb.GetInvitationRequest, context: object
    ) -> pb.GetInvitationResponse:
        """What an invitation offers."""
        invitation, organization_name = await self._invitations.look_at(request.token)
        return pb.GetInvitationResponse(
            invitation=_invitation(invitation), organization_name=organization_name
        )

    async def AcceptInvitation(
        self, request: pb.AcceptInvitationRequest, context: object
    ) -> pb.AcceptInvitationResponse:
        """Make somebody a member and sign them in."""
        member, session, token = await self._invitations.accept(
            request.token,
            request.name,
            request.password,
            Seen(request.address, request.user_agent),
        )
        return pb.AcceptInvitationResponse(
            token=token,
            member=member_message(member),
            expire_time=timestamp(session.expire_time),
        )


def _require_nothing_else(request: pb.SignInRequest) -> None:
    given = [
        FieldProblem(name, "must be left out with a link")
        for name in ("email", "password", "organization_id")
        if getattr(request, name)
    ]
    if given:
        raise InvalidArgumentError(given)


def _given(request: Message, *names: str) -> dict[str, str]:
    """Those of these fields that were sent."""
    return {name: getattr(request, name) for name in names if request.HasField(name)}


def _role(number: accounts_pb2.Role.ValueType) -> str:
    # An unknown number stays, so that the domain refuses it.
    return ROLE_NAMES.get(number) or str(number)


def _invitation(invitation: Invitation) -> pb.Invitation:
    message = pb.Invitation(
        id=invitation.id,
        email=invitation.email,
        role=ROLE_NUMBERS[invitation.role],
        invited_by=invitation.invited_by,
        create_time=timestamp(invitation.create_time),
        expire_time=timestamp(invitation.expire_time),
        accept_time=timestamp(invitation.accept_time),
        revoke_time=timestamp(invitation.revoke_time),
        member_id=invitation.member_id or "",
    )
    return tagged(message)


def member_message(member: Member) -> pb.Member:
    """The message of a member, with its entity tag."""
    message = pb.Member(
        id=member.id,
        email=member.email,
        name=member.name,
        role=ROLE_NUMBERS[member.role],
        create_time=timestamp(member.create_time),
        sign_in_time=timestamp(member.sign_in_time),
        has_password=member.password_hash is not None,
    )
    return tagged(message)


def _session(session: Session, current_id: str) -> pb.Session:
    return pb.Session(
        id=session.id,
        create_time=timestamp(session.create_time),
        use_time=timestamp(session.use_time),
        expire_time=timestamp(session.expire_time),
        address=session.address,
        user_agent=session.user_agent,
        current=session.id == current_id,
    )
