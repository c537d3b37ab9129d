"""Who keys and sessions stand for, and how the other processes are told of a change."""

from usageflow.accounts.v1 import accounts_pb2 as pb
from usageflow.accounts.v1 import messages_pb2

from services.accounts.domain import ResolvedKey
from services.accounts.proto import SCOPE_NUMBERS, timestamp
from services.accounts.service import Accounts
from services.accounts.signing_in import ResolvedSession, SigningIn
from services.kit.auth import (
    KEY_CHANGED_SUBJECT,
    MEMBER_CHANGED_SUBJECT,
    MODE_NUMBERS,
    ORGANIZATION_CHANGED_SUBJECT,
    ROLE_NUMBERS,
    Principal,
)
from services.kit.keys import split_session
from services.kit.messaging import Messaging


class OwnKeys:
    """A kit KeyResolver over accounts' own database.

    It remembers nothing: calls to accounts are rare, and so a revoked key or an ended session ends
    here at once, in every replica, whether NATS is up or not.
    """

    def __init__(self, accounts: Accounts, signing_in: SigningIn) -> None:
        self._accounts = accounts
        self._signing_in = signing_in

    async def resolve(self, secret: str) -> Principal:
        """Who the key or session stands for. UnauthenticatedError, UnavailableError."""
        session = split_session(secret)
        if session is None:
            return Principal.from_proto(
                principal_of_key(await self._accounts.resolve_api_key(secret))
            )
        token, mode = session
        return Principal.from_proto(
            principal_of_session(await self._signing_in.resolve(token), mode)
        )


def principal_of_key(resolved: ResolvedKey) -> pb.Principal:
    """Who a key stands for."""
    key = resolved.key
    return pb.Principal(
        key_id=key.id,
        organization_id=key.organization_id,
        mode=MODE_NUMBERS[key.mode],
        scopes=[SCOPE_NUMBERS[scope] for scope in key.scopes],
        expire_time=timestamp(key.expire_time),
        event_past_days=resolved.settings.event_past_days,
        strict_metrics=resolved.settings.strict_metrics,
    )


def principal_of_session(resolved: ResolvedSession, mode: str) -> pb.Principal:
    """Who a session stands for, in the mode ("live" or "test") that its member looks at."""
    member, session = resolved.member, resolved.session
    return pb.Principal(
        organization_id=member.organization_id,
        mode=MODE_NUMBERS[mode],
        expire_time=timestamp(session.expire_time),
        event_past_days=resolved.event_past_days,
        member_id=member.id,
        role=ROLE_NUMBERS[member.role],
        session_id=session.id,
        member_name=member.name,
    )


class ChangeBroadcast:
    """A Changes over core NATS: whoever is away learns of it within 30 s by asking again."""

    def __init__(self, messaging: Messaging) -> None:
        self._messaging = messaging

    async def key_changed(self, key_id: str) -> None:
        """Tell every process that listens now. UnavailableError."""
        message = messages_pb2.ApiKeyChanged(key_id=key_id)
        await self._messaging.broadcast(KEY_CHANGED_SUBJECT, message.SerializeToString())

    async def organization_changed(self, organization_id: str) -> None:
        """Tell every process that listens now. UnavailableError."""
        message = messages_pb2.OrganizationChanged(organization_id=organization_id)
        await self._messaging.broadcast(ORGANIZATION_CHANGED_SUBJECT, message.SerializeToString())

    async def member_changed(self, member_id: str) -> None:
        """Tell every process that listens now. UnavailableError."""
        message = messages_pb2.MemberChanged(member_id=member_id)
        await self._messaging.broadcast(MEMBER_CHANGED_SUBJECT, message.SerializeToString())
