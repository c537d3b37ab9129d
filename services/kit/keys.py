"""The form of an API key: "uf_live_" or "uf_test_", 32 random base62 characters, 6 of checksum.

32 base62 characters are 190.5 bits. The checksum is the CRC32 of all that stands before it, in
base62: it tells a mistyped key from a real one without a look-up. It is no protection and needs to
be none, since nobody guesses 190 bits.
"""

import re
import secrets
import zlib

KEY_MODES = ("live", "test")
RANDOM_CHARACTERS = 32
CHECKSUM_CHARACTERS = 6
# What may be shown of a key, to recognize it by: the mode and 4 of the random characters.
PREFIX_CHARACTERS = 12

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SHAPE = re.compile(
    rf"uf_(?:{'|'.join(KEY_MODES)})_[0-9A-Za-z]{{{RANDOM_CHARACTERS + CHECKSUM_CHARACTERS}}}"
)


def make_key(mode: str) -> str:
    """A new key for `mode` ("live" or "test"); ValueError for any other mode."""
    if mode not in KEY_MODES:
        raise ValueError(f"no such mode: {mode}")
    random = "".join(secrets.choice(_BASE62) for _ in range(RANDOM_CHARACTERS))
    body = f"uf_{mode}_{random}"
    return body + checksum(body)


def looks_like_key(secret: str) -> bool:
    """Whether `secret` has the shape of a key and the right checksum."""
    if _SHAPE.fullmatch(secret) is None:
        return False
    body, end = secret[:-CHECKSUM_CHARACTERS], secret[-CHECKSUM_CHARACTERS:]
    return checksum(body) == end


def checksum(body: str) -> str:
    """CRC32 of `body` as 6 base62 characters (62^6 > 2^32), most significant first."""
    value = zlib.crc32(body.encode())
    digits = []
    for _ in range(CHECKSUM_CHARACTERS):
        value, digit = divmod(value, len(_BASE62))
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))
