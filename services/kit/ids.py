"""Identifiers: a prefix that says what it is, and a UUIDv7 (RFC 9562), which sorts by time."""

import os
import time
from uuid import UUID

from services.kit.errors import FieldProblem, InvalidArgumentError

_HEX_DIGITS = 32
_HEX = set("0123456789abcdef")


def new_uuid() -> UUID:
    """A UUIDv7: 48 bits of milliseconds, then 74 random bits (RFC 9562, 5.7)."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10))
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
    value |= 0x7 << 76
    value |= (random >> 68) << 64
    value |= 0b10 << 62
    value |= random & 0x3FFF_FFFF_FFFF_FFFF
    return UUID(int=value)


def new_id(prefix: str) -> str:
    """For example "inv_" and 32 hexadecimal digits."""
    return f"{prefix}_{new_uuid().hex}"


def is_id(text: str, prefix: str) -> bool:
    """Whether `text` has the form that new_id(prefix) gives."""
    start, _, digits = text.partition("_")
    return start == prefix and len(digits) == _HEX_DIGITS and set(digits) <= _HEX


def organization_uuid(organization_id: str) -> UUID:
    """The UUID inside "org_<32 hexadecimal digits>"; InvalidArgumentError for anything else."""
    prefix, _, digits = organization_id.partition("_")
    if prefix == "org" and len(digits) == _HEX_DIGITS:
        try:
            return UUID(digits)
        except ValueError:
            pass
    raise InvalidArgumentError([FieldProblem("organizationId", "must be an organization's id")])
