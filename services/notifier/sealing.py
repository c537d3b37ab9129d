"""Secrets at rest: AES-256-GCM under a key that is not in the database. Pure.

A sealed value is one byte of version, eight that name the key, a nonce of twelve, and the
ciphertext with its tag. It opens only in the place that it was sealed for: whoever may write to
the database can't move one endpoint's secret to another.
"""

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_PURPOSE = b"usageflow webhook secrets\0"
_VERSION = b"\x01"
_KEY_NAME_BYTES = 8
_NONCE_BYTES = 12
PREFIX_BYTES = len(_VERSION) + _KEY_NAME_BYTES
OPENED_REMEMBERED_MAX = 4_096


class SealError(Exception):
    """A value that none of the keys opens."""


class Sealer:
    """Seals with the first of `keys` (texts, at least 32 characters each), opens with any."""

    def __init__(self, keys: Sequence[str]) -> None:
        derived = [
            hashlib.sha256(b"usageflow webhook secrets\0" + k.encode()).digest() for k in keys
        ]
        names = [_VERSION + hashlib.sha256(key).digest()[:_KEY_NAME_BYTES] for key in derived]
        self._ciphers = {name: AESGCM(key) for name, key in zip(names, derived, strict=True)}
        self.prefix = names[0]  # of what the first key has sealed
        # Signing keys are needed for every webhook; opening one costs about as much as signing.
        self.open = lru_cache(maxsize=OPENED_REMEMBERED_MAX)(self._open)

    def knows(self, prefix: bytes) -> bool:
        """Whether one of the keys opens values that begin with these PREFIX_BYTES."""
        return prefix in self._ciphers

    def seal(self, plain: bytes, place: str) -> bytes:
        """`plain` sealed for `place`, for example an endpoint's id and what it is there."""
        nonce = os.urandom(_NONCE_BYTES)
        return (
            self.prefix + nonce + self._ciphers[self.prefix].encrypt(nonce, plain, place.encode())
        )

    def _open(self, sealed: bytes, place: str) -> bytes:
        """What was sealed for `place`; SealError when it was not, or not with one of the keys."""
        cipher = self._ciphers.get(sealed[:PREFIX_BYTES])
        if cipher is None:
            raise SealError("sealed with a key that is not among WEBHOOK_SECRETS_KEY")
        nonce_end = PREFIX_BYTES + _NONCE_BYTES
        try:
            return cipher.decrypt(
                sealed[PREFIX_BYTES:nonce_end], sealed[nonce_end:], place.encode()
            )
        except InvalidTag:
            raise SealError("not what was sealed for this place") from None


def secret_place(endpoint_id: str) -> str:
    """Where an endpoint's signing keys are sealed for."""
    return f"{endpoint_id} secret"


def headers_place(endpoint_id: str) -> str:
    """Where an endpoint's own headers are sealed for."""
    return f"{endpoint_id} headers"
