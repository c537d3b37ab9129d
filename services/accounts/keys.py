"""Who keys and sessions stand for, and how the other processes are told of a change."""

from collections.abc import Iterable

from usageflow.accounts.v1 import accounts_pb2 as pb
from usageflow.accounts.v1 import messages_pb2
from usageflow.common.v1 import common_pb2

from services.accounts.domain import ClockTime, ResolvedKey
from services.accounts.portal import Portals
from services.accounts.portal_repository import ResolvedLink
from services.accounts.proto import SCOPE_NUMBERS, timestamp
from services.accounts.service import Accounts
from services.accounts.signing_in import ResolvedSession, SigningIn
from services.kit.auth import (
    KEY_CHANGED_SUBJECT,
    MEMBER_CHANGED_SUBJECT,
    MODE_NUMBERS,
    ORGANIZATION_CHANGED_SUBJECT,
    PORTAL_LINK_CHANGED_SUBJECT,
    ROLE_NUMBERS,
    Principal,
    invalid_credential,
)
from services.kit.keys import NO_KEY_STARTS
from services.kit.messaging import Messaging
from services.kit.signatures import Signatures


class OwnKeys:
    """A kit KeyResolver over accounts' own database.

    It remembers nothing: calls to accounts are rare, and so a revoked key or an ended session ends
    here at once, in every replica, whether NATS is up or not.
    """

    def __init__(
        self,
        accounts: Accounts,
        signing_in: SigningIn,
        portals: Portals,
        signatures: Signatures,
    ) -> None:
        self._signatures = signatures
        self._accounts = accounts
        self._signing_in = signing_in
        self._portals = portals

    async def resolve(self, secret: str) -> Principal:
        """Who the key, session or link stands for. UnauthenticatedError, UnavailableError."""
        return Principal.from_proto(await self._look_up(secret))

    async def _look_up(self, secret: str) -> pb.Principal:
        session = self._signatures.read_session(secret)
        if session is not None:
            token, mode = session
            return principal_of_session(await self._signing_in.resolve(token), mode)
        link = self._signatures.read_portal_link(secret)
        if link is not None:
            return principal_of_link(await self._portals.resolve(link))
        if secret.startswith(NO_KEY_STARTS):
            raise invalid_credential(secret)
        return principal_of_key(await self._accounts.resolve_api_key(secret))


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
        test_clocks=_clocks(resolved.clocks),
        requests_per_second=resolved.settings.requests_per_second,
        events_per_second=resolved.settings.events_per_second,
        key_requests_per_second=key.limits.requests_per_second,
        key_events_per_second=key.limits.events_per_second,
        allowed_networks=key.limits.networks,
    )


def principal_of_session(resolved: ResolvedSession, mode: str) -> pb.Principal:
    """Who a session stands for, in the mode ("live" or "test") that its member looks at."""
    member, session = resolved.member, resolved.session
    return pb.Principal(
        organization_id=member.organization_id,
        mode=MODE_NUMBERS[mode],
        expire_time=timestamp(session.expire_time),
        event_past_days=resolved.event_past_days,
        strict_metrics=resolved.strict_metrics,
        member_id=member.id,
        role=ROLE_NUMBERS[member.role],
        session_id=session.id,
        member_name=member.name,
        test_clocks=_clocks(resolved.clocks if mode == "test" else ()),
    )


def principal_of_link(resolved: ResolvedLink) -> pb.Principal:
    """Who a link to the customer portal stands for. Without scopes: a process that is older than
    such links lets it do nothing.
    """
    link = resolved.link
    return pb.Principal(
        organization_id=link.organization_id,
        mode=MODE_NUMBERS[link.mode],
        expire_time=timestamp(link.expire_time),
        event_past_days=resolved.event_past_days,
        customer_id=link.customer_id,
        portal_link_id=link.id,
        test_clocks=_clocks(resolved.clocks),
    )


def _clocks(clocks: Iterable[ClockTime]) -> list[common_pb2.TestClockTime]:
    return [
        common_pb2.TestClockTime(customer_id=each.customer_id, time=timestamp(each.time))
        for each in clocks
    ]


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

    async def portal_link_changed(self, link_id: str) -> None:
        """Tell every process that listens now. UnavailableError."""
        message = messages_pb2.PortalLinkChanged(portal_link_id=link_id)
        await self._messaging.broadcast(PORTAL_LINK_CHANGED_SUBJECT, message.SerializeToString())
