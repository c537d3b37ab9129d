"""Keyset pages: a token names a page's last row, so that rows that come or go shift nothing."""

import base64
import binascii
from typing import Protocol, TypeVar

import msgspec

from services.kit.errors import FieldProblem, InvalidArgumentError
from services.kit.ids import is_id

PAGE_SIZE_DEFAULT = 20
PAGE_SIZE_MAX = 100
TOKEN_CHARS_MAX = 2_000


def page_limit(
    page_size: int, *, default: int = PAGE_SIZE_DEFAULT, size_max: int = PAGE_SIZE_MAX
) -> int:
    """Rows to give: `default` for 0; InvalidArgumentError unless 0 to `size_max`."""
    if not 0 <= page_size <= size_max:
        raise InvalidArgumentError([FieldProblem("limit", f"must be from 1 to {size_max}")])
    return page_size or default


def encode_token(*parts: str) -> str:
    """An opaque token for the sort key of a page's last row."""
    return base64.urlsafe_b64encode(msgspec.json.encode(parts)).rstrip(b"=").decode()


def decode_token(token: str, count: int, *, chars_max: int = TOKEN_CHARS_MAX) -> tuple[str, ...]:
    """The `count` parts that encode_token was given; InvalidArgumentError for anything else."""
    try:
        if len(token) > chars_max:
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


class Identified(Protocol):
    """A row with an id that sorts."""

    @property
    def id(self) -> str:
        """What ids.new_id gives."""


_Row = TypeVar("_Row", bound=Identified)


def id_position(page_token: str, prefix: str) -> str | None:
    """The id after which a page begins, of a list in the order of ids; None for the first page."""
    if not page_token:
        return None
    (position,) = decode_token(page_token, 1)
    if not is_id(position, prefix):
        raise invalid_token()
    return position


def page_of_ids(rows: list[_Row], limit: int) -> tuple[list[_Row], str]:
    """Of up to `limit` + 1 rows those of one page, and the next page's token ("": the last)."""
    if len(rows) <= limit:
        return rows, ""
    return rows[:limit], encode_token(rows[limit - 1].id)
