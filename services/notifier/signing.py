"""Secrets and signatures of Standard Webhooks 1.0.0 (standardwebhooks.com). Pure."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105 (what a secret begins with)
# The specification allows 24 to 64 bytes.
KEY_BYTES = 32


def make_key() -> bytes:
    """A new signing key: 32 random bytes."""
    return secrets.token_bytes(KEY_BYTES)


def format_secret(key: bytes) -> str:
    """The key as it is shown to its owner: "whsec_" and base64."""
    return SECRET_PREFIX + base64.b64encode(key).decode()


def signature_header(keys: Sequence[bytes], webhook_id: str, timestamp_s: int, body: bytes) -> str:
    """The value of `webhook-signature`: one "v1,<base64>" a key, with spaces between."""
    content = f"{webhook_id}.{timestamp_s}.".encode() + body
    digests = (hmac.digest(key, content, hashlib.sha256) for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
