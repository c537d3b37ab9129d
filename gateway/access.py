"""Who is calling: the API key in a request's headers, and the principal it stands for."""

from typing import Final

from services.kit.auth import KeyCache, Principal, invalid_key, missing_key
from services.kit.errors import PermissionDeniedError
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


async def authenticate(keys: KeyCache, headers: dict[bytes, bytes], scope: str) -> Principal:
    """The principal, which has `scope`. UnauthenticatedError, PermissionDeniedError,
    UnavailableError.
    """
    secret = api_key(headers)
    principal = keys.cached(secret)
    if principal is None:
        principal = await keys.resolve(secret)
    if scope not in principal.scopes:
        raise PermissionDeniedError(
            f'The API key lacks the scope "{scope}"', reason="missing_scope"
        )
    return principal
