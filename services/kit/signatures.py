"""Signatures of what browsers keep: the cookie of a session, and links to the customer portal.

`<token>.<what it says>.<signature>`: a session says the mode ("live" or "test") that its member
looks at, a link until when it works, in seconds since 1970. The signature is HMAC-SHA256 under a
key for this purpose alone, which is derived from the internal token; so every process of ours can
check it, and nobody else can make one. What is forged, cut off, changed or of another purpose costs
no look-up. What is signed rightly is looked up: it may have been ended.
"""

import base64
import hashlib
import hmac
import math
from datetime import datetime
from typing import Final

from pydantic import SecretStr

from services.kit import clock
from services.kit.keys import KEY_MODES, PORTAL_START, SESSION_START, is_token

_SESSION: Final = b"usageflow signature of sessions, 1"
_PORTAL_LINK: Final = b"usageflow signature of portal links, 1"


class Signatures:
    """Makes and checks them."""

    def __init__(self, internal_token: SecretStr) -> None:
        secret = internal_token.get_secret_value().encode()
        self._session_key = hmac.digest(secret, _SESSION, hashlib.sha256)
        self._link_key = hmac.digest(secret, _PORTAL_LINK, hashlib.sha256)

    def session(self, token: str, mode: str) -> str:
        """A session as it travels: its token, and the mode that its member looks at."""
        return _signed(self._session_key, f"{token}.{mode}")

    def read_session(self, credential: str) -> tuple[str, str] | None:
        """Token and mode of what session() gave; None when it gave something else."""
        token, mode = _parts(self._session_key, credential)
        return (token, mode) if is_token(token, SESSION_START) and mode in KEY_MODES else None

    def portal_link(self, token: str, expire_time: datetime) -> str:
        """A link's token as it travels, which works until then at most."""
        return _signed(self._link_key, f"{token}.{math.ceil(expire_time.timestamp())}")

    def read_portal_link(self, credential: str) -> str | None:
        """The token of what portal_link() gave; None when it gave something else, or it is over."""
        token, until = _parts(self._link_key, credential)
        works = is_token(token, PORTAL_START) and clock.now().timestamp() < int(until)
        return token if works else None


def _signed(key: bytes, text: str) -> str:
    digest = hmac.digest(key, text.encode(), hashlib.sha256)
    return f"{text}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def _parts(key: bytes, credential: str) -> tuple[str, str]:
    """What was signed; two empty texts when the signature is not that of this key."""
    text = credential.rpartition(".")[0]
    if not hmac.compare_digest(_signed(key, text).encode(), credential.encode()):
        return "", ""
    token, _, said = text.partition(".")
    return token, said
