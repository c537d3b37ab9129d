"""Who is calling: the API key in a request's headers, the principal it stands for, from where it
may be used, and how fast.
"""

from typing import Final

from pydantic import SecretStr

from gateway.client import Clients
from gateway.rates import Caller, Rates
from gateway.wire import Scope
from services.kit.auth import KeyCache, Principal, invalid_key, missing_key, require_network
from services.kit.errors import PermissionDeniedError
from services.kit.grpc_client import forwarded_metadata
from services.kit.keys import NO_KEY_STARTS

KEY_HEADER: Final = b"x-usageflow-api-key"


def api_key(headers: dict[bytes, bytes]) -> str:
    """The key; UnauthenticatedError("Missing API key") when there is none."""
    secret = headers.get(KEY_HEADER)
    if not secret:
        scheme, _, value = headers.get(b"authorization", b"").partition(b" ")
        secret = value.strip() if scheme.lower() == b"bearer" else b""
    if not secret:
        raise missing_key()
    key = secret.decode("latin-1")
    if key.startswith(NO_KEY_STARTS):
        raise invalid_key()
    return key


def has_key(headers: dict[bytes, bytes]) -> bool:
    """Whether the request says that it comes with a key, right or wrong."""
    return KEY_HEADER in headers or b"authorization" in headers


class Access:
    """Lets callers in."""

    def __init__(
        self, keys: KeyCache, clients: Clients, rates: Rates, internal_token: SecretStr
    ) -> None:
        self.keys = keys
        self.rates = rates
        self._clients = clients
        self._token = internal_token

    async def principal(self, scope: Scope, headers: dict[bytes, bytes]) -> Principal:
        """Who calls with a key. UnauthenticatedError, UnavailableError, PermissionDeniedError."""
        secret = api_key(headers)
        principal = self.keys.cached(secret)
        if principal is None:
            principal = await self.keys.resolve(secret)
        if principal.networks:
            address = self._clients.address(scope, headers)
            require_network(principal, address)
            # The services look at it again, and see this gateway's address.
            scope["forwarded"] = forwarded_metadata(self._token, address)
        scope["credential"] = secret
        scope["principal"] = principal
        return principal

    async def tracker(self, scope: Scope, headers: dict[bytes, bytes]) -> Caller:
        """Who sends events. Errors as principal()."""
        principal = await self.principal(scope, headers)
        if "track" not in principal.scopes:
            raise PermissionDeniedError(
                'The API key lacks the scope "track"', reason="missing_scope"
            )
        return self.rates.caller(principal)
