"""Who is calling: API keys, looked up at accounts and remembered for at most 30 s.

A revoked key is dropped at once by a broadcast, and so are all keys of an organization whose
settings changed; whoever misses it (NATS is down) asks again within 30 s. While NATS is up and
accounts is down, what is remembered stays valid: a key can't be revoked without accounts, and its
broadcast would arrive.
"""

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import grpc
from pydantic import SecretStr
from usageflow.accounts.v1 import accounts_pb2, accounts_pb2_grpc, messages_pb2
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
from services.kit.keys import looks_like_key
from services.kit.messaging import Messaging
from services.kit.tenant import TenantKey

KEY_CHANGED_SUBJECT = "usageflow.accounts.api_key_changed"
ORGANIZATION_CHANGED_SUBJECT = "usageflow.accounts.organization_changed"
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


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a key stands for. `mode` is the proto number, `mode_name` "live" or "test".

    `event_past_micros` is `event_past_days` as events.check_event takes it.
    """

    key_id: str
    organization_id: str
    mode: int
    mode_name: str
    scopes: frozenset[str]
    expire_time: datetime | None = None
    event_past_days: int = PAST_DAYS_DEFAULT
    event_past_micros: int = field(init=False)

    def __post_init__(self) -> None:
        """Worked out once a key, not once an event."""
        object.__setattr__(self, "event_past_micros", self.event_past_days * MICROS_PER_DAY)

    @property
    def tenant(self) -> TenantKey:
        """Whose data the caller may see."""
        return TenantKey(self.organization_id, self.mode_name)

    def may(self, scope: str) -> bool:
        """Whether the key has the scope; "admin" includes "read"."""
        return scope in self.scopes or (scope == "read" and "admin" in self.scopes)

    @classmethod
    def from_proto(cls, message: accounts_pb2.Principal) -> "Principal":
        """The principal that accounts answered with."""
        expires = message.HasField("expire_time")
        return cls(
            key_id=message.key_id,
            organization_id=message.organization_id,
            mode=message.mode,
            mode_name=MODE_NAMES[message.mode],
            scopes=frozenset(SCOPE_NAMES[scope] for scope in message.scopes),
            expire_time=message.expire_time.ToDatetime(clock.UTC) if expires else None,
            event_past_days=message.event_past_days or PAST_DAYS_DEFAULT,
        )


def missing_key() -> UnauthenticatedError:
    """The error of a call without a key."""
    return UnauthenticatedError("Missing API key", reason="missing_api_key")


def invalid_key() -> UnauthenticatedError:
    """The error of a wrong, revoked or expired key, all alike."""
    return UnauthenticatedError("Invalid API key", reason="invalid_api_key")


_principal: ContextVar[Principal | None] = ContextVar("principal", default=None)


def set_principal(principal: Principal | None) -> None:
    """Note who is calling, for the rest of this call."""
    _principal.set(principal)


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


class KeyResolver(Protocol):
    """Says who a key stands for."""

    async def resolve(self, secret: str) -> Principal:
        """UnauthenticatedError for a key that is wrong, revoked or expired."""


@dataclass(slots=True)
class _Remembered:
    principal: Principal
    until_s: float
    expires_s: float


class KeyCache:
    """Keys that were looked up at accounts, in memory."""

    def __init__(
        self, channel: grpc.aio.Channel, internal_token: SecretStr, messaging: Messaging
    ) -> None:
        self._accounts = accounts_pb2_grpc.AccountsInternalServiceStub(channel)
        self._token = internal_token
        self._messaging = messaging
        self._remembered: dict[str, _Remembered] = {}
        self._refused_until_s: dict[str, float] = {}
        self._running: dict[str, asyncio.Task[Principal]] = {}
        self._changes = 0

    async def start(self) -> None:
        """Begin to listen for revoked keys and changed organizations."""
        await self._messaging.on_broadcast(KEY_CHANGED_SUBJECT, self._on_key_changed)
        await self._messaging.on_broadcast(
            ORGANIZATION_CHANGED_SUBJECT, self._on_organization_changed
        )
        self._messaging.on_reconnect(self._on_reconnect)

    async def _on_key_changed(self, payload: bytes) -> None:
        key_id = messages_pb2.ApiKeyChanged.FromString(payload).key_id
        self._forget(lambda principal: principal.key_id == key_id)

    async def _on_organization_changed(self, payload: bytes) -> None:
        organization_id = messages_pb2.OrganizationChanged.FromString(payload).organization_id
        self._forget(lambda principal: principal.organization_id == organization_id)

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
        """Who the key stands for. UnauthenticatedError("Invalid API key"), UnavailableError."""
        principal = self.cached(secret)
        if principal is not None:
            return principal
        if not looks_like_key(secret):
            raise invalid_key()
        if time.monotonic() < self._refused_until_s.get(secret, 0):
            raise invalid_key()
        # Many callers with one key ask accounts once.
        task = self._running.get(secret)
        if task is None:
            task = asyncio.create_task(self._ask(secret))
            self._running[secret] = task
            task.add_done_callback(lambda _task: self._running.pop(secret, None))
        return await asyncio.shield(task)

    async def _ask(self, secret: str) -> Principal:
        changes = self._changes
        try:
            response = await self._accounts.ResolveApiKey(
                accounts_pb2.ResolveApiKeyRequest(secret=secret),
                timeout=RESOLVE_TIMEOUT_S,
                metadata=internal_metadata(self._token),
            )
        except grpc.aio.AioRpcError as rpc_error:
            error = from_rpc_error(rpc_error)
            if isinstance(error, UnauthenticatedError) and error.reason == "invalid_api_key":
                self._remembered.pop(secret, None)
                self._remember_refused(secret)
                raise invalid_key() from None
            return self._still_valid(secret)
        principal = Principal.from_proto(response.principal)
        # What changed while we asked must not be remembered.
        if changes == self._changes:
            self._remember(secret, principal)
        return principal

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
