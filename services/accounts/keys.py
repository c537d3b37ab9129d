"""How accounts itself knows its callers, and how it tells the other processes of a change."""

from usageflow.accounts.v1 import messages_pb2

from services.accounts.service import Accounts
from services.kit.auth import (
    KEY_CHANGED_SUBJECT,
    MODE_NUMBERS,
    ORGANIZATION_CHANGED_SUBJECT,
    Principal,
)
from services.kit.messaging import Messaging


class OwnKeys:
    """A kit KeyResolver over accounts' own database.

    It remembers nothing: calls to accounts are rare, and so a revoked key ends here at once, in
    every replica, whether NATS is up or not.
    """

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def resolve(self, secret: str) -> Principal:
        """Who the key stands for. UnauthenticatedError("Invalid API key"), UnavailableError."""
        resolved = await self._accounts.resolve_api_key(secret)
        key = resolved.key
        return Principal(
            key_id=key.id,
            organization_id=key.organization_id,
            mode=MODE_NUMBERS[key.mode],
            mode_name=key.mode,
            scopes=frozenset(key.scopes),
            expire_time=key.expire_time,
            event_past_days=resolved.settings.event_past_days,
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
