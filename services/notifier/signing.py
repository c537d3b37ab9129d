"""Secrets and signatures of Standard Webhooks 1.0.0 (standardwebhooks.com). Pure.

Two kinds: "v1", HMAC-SHA256 with a secret that both sides know (`whsec_`), and "v1a", ed25519,
of which the receiver has the public key only (`whpk_`).
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SECRET_PREFIX = "whsec_"  # noqa: S105 (what a secret begins with)
PRIVATE_PREFIX = "whsk_"
PUBLIC_PREFIX = "whpk_"
HMAC = "v1"
ED25519 = "v1a"
# The specification allows 24 to 64 bytes.
KEY_BYTES_MIN = 24
KEY_BYTES_MAX = 64
KEY_BYTES = 32
SEED_BYTES = 32


@dataclass(frozen=True)
class SigningKey:
    """What signs. `kind` "v1" or "v1a"; `key` is the HMAC key, or the seed of an ed25519 key."""

    kind: str
    key: bytes

    @cached_property
    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.key)

    @property
    def public_key(self) -> bytes | None:
        """The 32 bytes that an ed25519 key is verified with; None for HMAC."""
        return self._private.public_key().public_bytes_raw() if self.kind == ED25519 else None

    @property
    def secret(self) -> str:
        """What its owner is shown, once: "whsec_..."; "" for ed25519, which nobody needs."""
        return "" if self.kind == ED25519 else SECRET_PREFIX + base64.b64encode(self.key).decode()

    def sign(self, content: bytes) -> str:
        """One element of `webhook-signature`: the kind, a comma, and base64."""
        if self.kind == ED25519:
            digest = self._private.sign(content)
        else:
            digest = hmac.digest(self.key, content, hashlib.sha256)
        return f"{self.kind},{base64.b64encode(digest).decode()}"


def make_key(kind: str) -> SigningKey:
    """A new key: 32 random bytes are right for both kinds."""
    return SigningKey(kind, secrets.token_bytes(KEY_BYTES if kind == HMAC else SEED_BYTES))


def format_public_key(public_key: bytes | None) -> str:
    """ "whpk_..."; "" for None."""
    return "" if public_key is None else PUBLIC_PREFIX + base64.b64encode(public_key).decode()


def parse_secret(text: str) -> SigningKey:
    """A secret of the caller's own. ValueError says what is allowed.

    "whsk_" carries the seed, or seed and public key as libsodium writes them.
    """
    if text.startswith(SECRET_PREFIX):
        key = _decode(text.removeprefix(SECRET_PREFIX))
        if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
            raise ValueError(f"must carry {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes after whsec_")
        return SigningKey(HMAC, key)
    if text.startswith(PRIVATE_PREFIX):
        key = _decode(text.removeprefix(PRIVATE_PREFIX))
        if len(key) not in (SEED_BYTES, 2 * SEED_BYTES):
            raise ValueError("must carry 32 or 64 bytes after whsk_")
        signing_key = SigningKey(ED25519, key[:SEED_BYTES])
        if key[SEED_BYTES:] not in (b"", signing_key.public_key):
            raise ValueError("must end with its own public key")
        return signing_key
    raise ValueError("must begin with whsec_ or whsk_")


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be base64 after its prefix") from None


def signature_header(
    keys: Sequence[SigningKey], webhook_id: str, timestamp_s: int, body: bytes
) -> str:
    """The value of `webhook-signature`: one element a key, with spaces between."""
    content = f"{webhook_id}.{timestamp_s}.".encode() + body
    return " ".join(key.sign(content) for key in keys)
