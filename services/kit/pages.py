"""Keyset pages: a token names a page's last row, so that rows that come or go shift nothing."""

import base64
import binascii

import msgspec

from services.kit.errors import FieldProblem, InvalidArgumentError

PAGE_SIZE_DEFAULT = 20
PAGE_SIZE_MAX = 100
TOKEN_CHARS_MAX = 2_000


def page_limit(page_size: int) -> int:
    """Rows to give: 20 for 0; InvalidArgumentError unless 0-100."""
    if not 0 <= page_size <= PAGE_SIZE_MAX:
        raise InvalidArgumentError([FieldProblem("limit", f"must be from 1 to {PAGE_SIZE_MAX}")])
    return page_size or PAGE_SIZE_DEFAULT


def encode_token(*parts: str) -> str:
    """An opaque token for the sort key of a page's last row."""
    return base64.urlsafe_b64encode(msgspec.json.encode(parts)).rstrip(b"=").decode()


def decode_token(token: str, count: int) -> tuple[str, ...]:
    """The `count` parts that encode_token was given; InvalidArgumentError for anything else."""
    try:
        if len(token) > TOKEN_CHARS_MAX:
            raise ValueError(token)
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        parts = msgspec.json.decode(raw, type=tuple[str, ...])
        if len(parts) != count:
            raise ValueError(token)
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise invalid_token() from None
    return parts


def invalid_token() -> InvalidArgumentError:
    """What to raise for a token that is not one of this list's."""
    return InvalidArgumentError([FieldProblem("cursor", "must be a nextCursor of the same list")])
