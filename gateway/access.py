"""Who is calling: the API key in a request's headers, and the principal it stands for."""

from typing import Final

from services.kit.auth import KeyCache, Principal, missing_key
from services.kit.errors import PermissionDeniedError

KEY_HEADER: Final = b"x-usageflow-api-key"


def api_key(headers: dict[bytes, bytes]) -> str:
    """The key; UnauthenticatedError("Missing API key") when there is none."""
    secret = headers.get(KEY_HEADER)
    if not secret:
        scheme, _, value = headers.get(b"authorization", b"").partition(b" ")
        secret = value.strip() if scheme.lower() == b"bearer" else b""
    if not secret:
        raise missing_key()
    return secret.decode("latin-1")


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
