"""Translates between proto and domain, for members and their sessions."""

from usageflow.accounts.v1 import members_pb2 as pb
from usageflow.accounts.v1.members_pb2_grpc import (
    MembersInternalServiceServicer,
    MembersServiceServicer,
)

from services.accounts.keys import principal_of_session
from services.accounts.people import Member, Seen, Session
from services.accounts.proto import organization_message, timestamp
from services.accounts.service import Accounts
from services.accounts.signing_in import SigningIn
from services.kit.auth import MODE_NAMES, ROLE_NUMBERS, current_principal
from services.kit.errors import FieldProblem, InvalidArgumentError


class MembersServicer(MembersServiceServicer):
    """What members may do; kit.permissions has looked at their role."""

    def __init__(self, accounts: Accounts, signing_in: SigningIn) -> None:
        self._accounts = accounts
        self._signing_in = signing_in

    async def GetCurrentMember(
        self, request: pb.GetCurrentMemberRequest, context: object
    ) -> pb.GetCurrentMemberResponse:
        """Who is calling."""
        principal = current_principal()
        member = await self._signing_in.get_member(principal.organization_id, principal.member_id)
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


class MembersInternalServicer(MembersInternalServiceServicer):
    """What UsageFlow's own processes may do; the interceptor has checked the internal token."""

    def __init__(self, signing_in: SigningIn) -> None:
        self._signing_in = signing_in

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


def _require_nothing_else(request: pb.SignInRequest) -> None:
    given = [
        FieldProblem(name, "must be left out with a link")
        for name in ("email", "password", "organization_id")
        if getattr(request, name)
    ]
    if given:
        raise InvalidArgumentError(given)


def member_message(member: Member) -> pb.Member:
    """The message of a member."""
    return pb.Member(
        id=member.id,
        email=member.email,
        name=member.name,
        role=ROLE_NUMBERS[member.role],
        create_time=timestamp(member.create_time),
        sign_in_time=timestamp(member.sign_in_time),
        has_password=member.password_hash is not None,
    )


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
