"""The form of an API key: "uf_live_" or "uf_test_", 32 random base62 characters, 6 of checksum.

Other tokens (of sessions, of links that work once) have the same form with another beginning.

32 base62 characters are 190.5 bits. The checksum is the CRC32 of all that stands before it, in
base62: it tells a mistyped key from a real one without a look-up. It is no protection and needs to
be none, since nobody guesses 190 bits.
"""

import re
import secrets
import zlib

KEY_MODES = ("live", "test")
SESSION_START = "ufs_"
SIGN_IN_LINK_START = "ufl_"
INVITATION_START = "ufi_"
PORTAL_START = "ufp_"
# What travels where a session does, and is never taken for a key.
NO_KEY_STARTS = (SESSION_START, PORTAL_START)
RANDOM_CHARACTERS = 32
CHECKSUM_CHARACTERS = 6
# What may be shown of a key, to recognize it by: the mode and 4 of the random characters.
PREFIX_CHARACTERS = 12

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_END = re.compile(rf"[0-9A-Za-z]{{{RANDOM_CHARACTERS + CHECKSUM_CHARACTERS}}}")
_KEY_STARTS = tuple(f"uf_{mode}_" for mode in KEY_MODES)


def make_key(mode: str) -> str:
    """A new key for `mode` ("live" or "test"); ValueError for any other mode."""
    if mode not in KEY_MODES:
        raise ValueError(f"no such mode: {mode}")
    return make_token(f"uf_{mode}_")


def looks_like_key(secret: str) -> bool:
    """Whether `secret` has the shape of a key and the right checksum."""
    return any(is_token(secret, start) for start in _KEY_STARTS)


def make_token(start: str) -> str:
    """A new secret of a key's form that begins with `start`."""
    random = "".join(secrets.choice(_BASE62) for _ in range(RANDOM_CHARACTERS))
    body = start + random
    return body + checksum(body)


def is_token(text: str, start: str) -> bool:
    """Whether `text` has the form that make_token(start) gives, with the right checksum."""
    if not text.startswith(start) or _END.fullmatch(text, len(start)) is None:
        return False
    body, end = text[:-CHECKSUM_CHARACTERS], text[-CHECKSUM_CHARACTERS:]
    return checksum(body) == end


def checksum(body: str) -> str:
    """CRC32 of `body` as 6 base62 characters (62^6 > 2^32), most significant first."""
    value = zlib.crc32(body.encode())
    digits = []
    for _ in range(CHECKSUM_CHARACTERS):
        value, digit = divmod(value, len(_BASE62))
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))
