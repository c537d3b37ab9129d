"""Secrets at rest: AES-256-GCM under a key that is not in the database. Pure.

A sealed value is one byte of version, eight that name the key, a nonce of twelve, and the
ciphertext with its tag. It opens only in the place that it was sealed for: whoever may write to
the database can't move one owner's secret to another.
"""

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = b"\x01"
_KEY_NAME_BYTES = 8
_NONCE_BYTES = 12
PREFIX_BYTES = len(_VERSION) + _KEY_NAME_BYTES
OPENED_REMEMBERED_MAX = 4_096


class SealError(Exception):
    """A value that none of the keys opens."""


class Sealer:
    """Seals with the first of `keys` (texts, at least 32 characters each), opens with any.

    `purpose` is what is sealed: the same key text seals something else with another key.
    `setting` names where the keys come from.
    """

    def __init__(self, keys: Sequence[str], purpose: str, setting: str) -> None:
        derived = [hashlib.sha256(f"{purpose}\0{key}".encode()).digest() for key in keys]
        names = [_VERSION + hashlib.sha256(key).digest()[:_KEY_NAME_BYTES] for key in derived]
        self._ciphers = {name: AESGCM(key) for name, key in zip(names, derived, strict=True)}
        self._setting = setting
        self.prefix = names[0]  # of what the first key has sealed
        # What is needed all the time; opening one costs about as much as signing.
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
            raise SealError(f"sealed with a key that is not among {self._setting}")
        nonce_end = PREFIX_BYTES + _NONCE_BYTES
        try:
            return cipher.decrypt(
                sealed[PREFIX_BYTES:nonce_end], sealed[nonce_end:], place.encode()
            )
        except InvalidTag:
            raise SealError("not what was sealed for this place") from None
