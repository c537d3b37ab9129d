"""Who is calling: API keys and sessions, looked up at accounts and remembered for at most 30 s.

A revoked key is dropped at once by a broadcast, and so are the sessions of a member who changed and
all keys of an organization whose settings changed; whoever misses it (NATS is down) asks again
within 30 s. While NATS is up and accounts is down, what is remembered stays valid: a key can't be
revoked without accounts, and its broadcast would arrive.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

import grpc
from pydantic import SecretStr
from usageflow.accounts.v1 import (
    accounts_pb2,
    accounts_pb2_grpc,
    members_pb2,
    members_pb2_grpc,
    messages_pb2,
    portal_pb2,
    portal_pb2_grpc,
)
from usageflow.common.v1 import common_pb2

from services.kit import clock
from services.kit.errors import (
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
    from_rpc_error,
)
from services.kit.events import MICROS_PER_DAY, PAST_DAYS_DEFAULT
from services.kit.grpc_client import internal_metadata
from services.kit.keys import PORTAL_START, SESSION_START, looks_like_key
from services.kit.limits import (
    EVENTS_PER_S_DEFAULT,
    REQUESTS_PER_S_DEFAULT,
    Network,
    is_within,
    networks,
)
from services.kit.messaging import Messaging
from services.kit.signatures import Signatures
from services.kit.tenant import TenantKey

KEY_CHANGED_SUBJECT = "usageflow.accounts.api_key_changed"
ORGANIZATION_CHANGED_SUBJECT = "usageflow.accounts.organization_changed"
MEMBER_CHANGED_SUBJECT = "usageflow.accounts.member_changed"
PORTAL_LINK_CHANGED_SUBJECT = "usageflow.accounts.portal_link_changed"
_EPOCH = datetime(1970, 1, 1, tzinfo=clock.UTC)
REMEMBERED_S = 30.0
REFUSED_REMEMBERED_S = 5.0
REMEMBERED_MAX = 10_000
RESOLVE_TIMEOUT_S = 3.0

MODE_NAMES = {common_pb2.MODE_LIVE: "live", common_pb2.MODE_TEST: "test"}
MODE_NUMBERS = {name: number for number, name in MODE_NAMES.items()}
SCOPE_NAMES = {
    accounts_pb2.SCOPE_TRACK: "track",
    accounts_pb2.SCOPE_READ: "read",
    accounts_pb2.SCOPE_ADMIN: "admin",
}
ROLE_NAMES = {
    accounts_pb2.ROLE_UNSPECIFIED: "",
    accounts_pb2.ROLE_OWNER: "OWNER",
    accounts_pb2.ROLE_ADMIN: "ADMIN",
    accounts_pb2.ROLE_DEVELOPER: "DEVELOPER",
    accounts_pb2.ROLE_VIEWER: "VIEWER",
}
ROLE_NUMBERS = {name: number for number, name in ROLE_NAMES.items()}
# As far as RPCs ask for scopes: what a role may do is told by permissions.py, before they run.
_MEMBER_SCOPES = frozenset({"read", "admin"})
# As far as portal.REACH lets its calls through.
_PORTAL_SCOPES = frozenset({"read"})


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a key, a member's session or a link to the customer portal stands for. `mode` is the
    proto number, `mode_name` "live" or "test". Of a key `member_id`, `role`, `session_id` and
    `member_name` are empty, of a session `key_id`; only a portal's link has `customer_id`, the one
    customer that it may see, and `portal_link_id`.

    `event_past_micros` is `event_past_days` as events.check_event takes it. `test_clocks`: in test
    mode, the time of customers, or ("") of all, in microseconds since 1970 (events.window).
    `requests_per_s` and `events_per_s` are its organization's limits, those with `key_` its own, 0:
    it has none. `networks`: where it may be used from; none named: anywhere.
    """

    key_id: str
    organization_id: str
    mode: int
    mode_name: str
    scopes: frozenset[str]
    expire_time: datetime | None = None
    event_past_days: int = PAST_DAYS_DEFAULT
    member_id: str = ""
    role: str = ""
    session_id: str = ""
    member_name: str = ""
    strict_metrics: bool = False
    customer_id: str = ""
    portal_link_id: str = ""
    test_clocks: tuple[tuple[str, int], ...] = ()
    requests_per_s: int = REQUESTS_PER_S_DEFAULT
    events_per_s: int = EVENTS_PER_S_DEFAULT
    key_requests_per_s: int = 0
    key_events_per_s: int = 0
    networks: tuple[Network, ...] = ()
    event_past_micros: int = field(init=False)

    def __post_init__(self) -> None:
        """Worked out once a key, not once an event."""
        object.__setattr__(self, "event_past_micros", self.event_past_days * MICROS_PER_DAY)

    @property
    def tenant(self) -> TenantKey:
        """Whose data the caller may see."""
        return TenantKey(self.organization_id, self.mode_name)

    def time_of(self, customer_id: str) -> datetime | None:
        """What the test clock of a customer, or ("") of all, shows; None: there is none."""
        for covered, time_micros in self.test_clocks:
            if covered in ("", customer_id):
                return _EPOCH + timedelta(microseconds=time_micros)
        return None

    @property
    def actor_id(self) -> str:
        """Who does it, for the audit log: the key or the member."""
        return self.member_id or self.key_id or self.portal_link_id

    def may(self, scope: str) -> bool:
        """Whether the caller has the scope; "admin" includes "read"."""
        return scope in self.scopes or (scope == "read" and "admin" in self.scopes)

    @classmethod
    def from_proto(cls, message: accounts_pb2.Principal) -> "Principal":
        """The principal that accounts answered with."""
        expires = message.HasField("expire_time")
        scopes = frozenset(SCOPE_NAMES[scope] for scope in message.scopes)
        return cls(
            key_id=message.key_id,
            organization_id=message.organization_id,
            mode=message.mode,
            mode_name=MODE_NAMES[message.mode],
            scopes=_MEMBER_SCOPES
            if message.member_id
            else _PORTAL_SCOPES
            if message.customer_id
            else scopes,
            expire_time=message.expire_time.ToDatetime(clock.UTC) if expires else None,
            event_past_days=message.event_past_days or PAST_DAYS_DEFAULT,
            member_id=message.member_id,
            # A role that is newer than this program is none: it may do nothing here.
            role=ROLE_NAMES.get(message.role, ""),
            session_id=message.session_id,
            member_name=message.member_name,
            strict_metrics=message.strict_metrics,
            customer_id=message.customer_id,
            portal_link_id=message.portal_link_id,
            test_clocks=clock_times(message.test_clocks),
            # An accounts of the version before does not tell them.
            requests_per_s=message.requests_per_second or REQUESTS_PER_S_DEFAULT,
            events_per_s=message.events_per_second or EVENTS_PER_S_DEFAULT,
            key_requests_per_s=message.key_requests_per_second,
            key_events_per_s=message.key_events_per_second,
            networks=networks(message.allowed_networks),
        )


def clock_times(
    messages: Iterable[common_pb2.TestClockTime],
) -> tuple[tuple[str, int], ...]:
    """Customers and times in microseconds since 1970."""
    return tuple((each.customer_id, each.time.ToMicroseconds()) for each in messages)


def missing_key() -> UnauthenticatedError:
    """The error of a call without a key."""
    return UnauthenticatedError("Missing API key", reason="missing_api_key")


def invalid_key() -> UnauthenticatedError:
    """The error of a wrong, revoked or expired key, all alike."""
    return UnauthenticatedError("Invalid API key", reason="invalid_api_key")


def invalid_session() -> UnauthenticatedError:
    """The error of a wrong, ended or expired session, all alike."""
    return UnauthenticatedError("Your session has ended: sign in again", reason="invalid_session")


def invalid_portal_link() -> UnauthenticatedError:
    """The error of a wrong, revoked or expired link to the customer portal, all alike."""
    return UnauthenticatedError(
        "This link works no more: ask whoever sent it for a new one", reason="invalid_portal_link"
    )


def invalid_credential(secret: str) -> UnauthenticatedError:
    """The error that fits what was sent."""
    if secret.startswith(PORTAL_START):
        return invalid_portal_link()
    return invalid_session() if secret.startswith(SESSION_START) else invalid_key()


_principal: ContextVar[Principal | None] = ContextVar("principal", default=None)


def set_principal(principal: Principal | None) -> None:
    """Note who is calling, for the rest of this call."""
    _principal.set(principal)


def principal_or_none() -> Principal | None:
    """Who is calling; None: one of UsageFlow's own processes."""
    return _principal.get()


def current_principal() -> Principal:
    """Who is calling."""
    principal = _principal.get()
    if principal is None:
        raise missing_key()
    return principal


def require_scope(scope: str) -> Principal:
    """Who is calling; PermissionDeniedError unless the key has the scope."""
    principal = current_principal()
    if not principal.may(scope):
        raise PermissionDeniedError(
            f'The API key lacks the scope "{scope}"', reason="missing_scope"
        )
    return principal


def require_network(principal: Principal, address: str) -> None:
    """PermissionDeniedError when the key may not be used from this address; what is no address
    counts as one of no network.
    """
    if principal.networks and not is_within(address, principal.networks):
        # Not from where it may be: whoever has found a key is told nothing that helps.
        raise PermissionDeniedError(
            "This API key may not be used from this address", reason="address_not_allowed"
        )


class KeyResolver(Protocol):
    """Says who a key or session stands for."""

    async def resolve(self, secret: str) -> Principal:
        """UnauthenticatedError for a key that is wrong, revoked or expired, and for a session
        or portal link (signatures.py) that is wrong or has ended.
        """


@dataclass(frozen=True, slots=True)
class _Question:
    """An RPC of accounts that looks something up, and its request; the answer has `principal`."""

    rpc: Any
    request: Any


@dataclass(slots=True)
class _Remembered:
    principal: Principal
    until_s: float
    expires_s: float


class KeyCache:
    """Keys and sessions that were looked up at accounts, in memory."""

    def __init__(
        self, channel: grpc.aio.Channel, internal_token: SecretStr, messaging: Messaging
    ) -> None:
        self._accounts = accounts_pb2_grpc.AccountsInternalServiceStub(channel)
        self._members = members_pb2_grpc.MembersInternalServiceStub(channel)
        self._portals = portal_pb2_grpc.PortalInternalServiceStub(channel)
        self._token = internal_token
        self._signatures = Signatures(internal_token)
        self._messaging = messaging
        self._remembered: dict[str, _Remembered] = {}
        self._refused_until_s: dict[str, float] = {}
        self._running: dict[str, asyncio.Task[Principal]] = {}
        self._changes = 0

    async def start(self) -> None:
        """Begin to listen for revoked keys and links, changed organizations and members."""
        await self._messaging.on_broadcast(KEY_CHANGED_SUBJECT, self._on_key_changed)
        await self._messaging.on_broadcast(
            ORGANIZATION_CHANGED_SUBJECT, self._on_organization_changed
        )
        await self._messaging.on_broadcast(MEMBER_CHANGED_SUBJECT, self._on_member_changed)
        await self._messaging.on_broadcast(
            PORTAL_LINK_CHANGED_SUBJECT, self._on_portal_link_changed
        )
        self._messaging.on_reconnect(self._on_reconnect)

    async def _on_key_changed(self, payload: bytes) -> None:
        key_id = messages_pb2.ApiKeyChanged.FromString(payload).key_id
        self._forget(lambda principal: principal.key_id == key_id)

    async def _on_organization_changed(self, payload: bytes) -> None:
        organization_id = messages_pb2.OrganizationChanged.FromString(payload).organization_id
        self._forget(lambda principal: principal.organization_id == organization_id)

    async def _on_member_changed(self, payload: bytes) -> None:
        member_id = messages_pb2.MemberChanged.FromString(payload).member_id
        self._forget(lambda principal: principal.member_id == member_id)

    async def _on_portal_link_changed(self, payload: bytes) -> None:
        link_id = messages_pb2.PortalLinkChanged.FromString(payload).portal_link_id
        self._forget(lambda principal: principal.portal_link_id == link_id)

    def _forget(self, changed: Callable[[Principal], bool]) -> None:
        self._changes += 1
        for secret, entry in list(self._remembered.items()):
            if changed(entry.principal):
                del self._remembered[secret]

    async def _on_reconnect(self) -> None:
        # Broadcasts were missed: everything has to be asked again.
        self._changes += 1
        self._remembered.clear()

    def cached(self, secret: str) -> Principal | None:
        """Who the key stands for when that is known without asking; never waits."""
        entry = self._remembered.get(secret)
        if entry is None:
            return None
        now_s = time.monotonic()
        if now_s >= entry.expires_s:
            return None
        return entry.principal if now_s < entry.until_s else None

    async def resolve(self, secret: str) -> Principal:
        """Who the key or session stands for. UnauthenticatedError, UnavailableError."""
        principal = self.cached(secret)
        if principal is not None:
            return principal
        question = self._question(secret)
        if time.monotonic() < self._refused_until_s.get(secret, 0):
            raise invalid_credential(secret)
        # Many callers with one key ask accounts once.
        task = self._running.get(secret)
        if task is None:
            task = asyncio.create_task(self._ask(secret, question))
            self._running[secret] = task
            task.add_done_callback(lambda _task: self._running.pop(secret, None))
        return await asyncio.shield(task)

    async def _ask(self, secret: str, question: _Question) -> Principal:
        changes = self._changes
        metadata = internal_metadata(self._token)
        try:
            answer = await question.rpc(
                question.request, timeout=RESOLVE_TIMEOUT_S, metadata=metadata
            )
            principal = Principal.from_proto(answer.principal)
        except grpc.aio.AioRpcError as rpc_error:
            error, refusal = from_rpc_error(rpc_error), invalid_credential(secret)
            if isinstance(error, UnauthenticatedError) and error.reason == refusal.reason:
                self._remembered.pop(secret, None)
                self._remember_refused(secret)
                raise refusal from None
            return self._still_valid(secret)
        # What changed while we asked must not be remembered.
        if changes == self._changes:
            self._remember(secret, principal)
        return principal

    def _question(self, secret: str) -> _Question:
        """Whom to ask what; UnauthenticatedError for what is wrong without asking."""
        if looks_like_key(secret):
            key = accounts_pb2.ResolveApiKeyRequest(secret=secret)
            return _Question(self._accounts.ResolveApiKey, key)
        session = self._signatures.read_session(secret)
        if session is not None:
            token, mode = session
            request = members_pb2.ResolveSessionRequest(token=token, mode=MODE_NUMBERS[mode])
            return _Question(self._members.ResolveSession, request)
        link = self._signatures.read_portal_link(secret)
        if link is not None:
            asked = portal_pb2.ResolvePortalLinkRequest(token=link)
            return _Question(self._portals.ResolvePortalLink, asked)
        raise invalid_credential(secret)

    def _still_valid(self, secret: str) -> Principal:
        """Accounts is away: go on with what is remembered while revocations would reach us."""
        entry = self._remembered.get(secret)
        now_s = time.monotonic()
        if entry is None or not self._messaging.connected or now_s >= entry.expires_s:
            raise UnavailableError("API keys can't be checked now; try again", retry_after_s=1.0)
        entry.until_s = now_s + REMEMBERED_S
        return entry.principal

    def _remember(self, secret: str, principal: Principal) -> None:
        if len(self._remembered) >= REMEMBERED_MAX:
            del self._remembered[next(iter(self._remembered))]
        now_s = time.monotonic()
        expires_s = float("inf")
        if principal.expire_time is not None:
            expires_s = now_s + (principal.expire_time - clock.now()).total_seconds()
        self._remembered[secret] = _Remembered(principal, now_s + REMEMBERED_S, expires_s)

    def _remember_refused(self, secret: str) -> None:
        if len(self._refused_until_s) >= REMEMBERED_MAX:
            del self._refused_until_s[next(iter(self._refused_until_s))]
        self._refused_until_s[secret] = time.monotonic() + REFUSED_REMEMBERED_S
