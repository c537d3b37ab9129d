"""The header Idempotency-Key of requests that make something, and what answers say of it."""

from typing import Annotated, Final, TypeAlias

from litestar.params import HeaderParameter

from gateway.event import KEY_HEADER
from gateway.track import unquoted
from services.kit.errors import FieldProblem, InvalidArgumentError
from services.kit.events import IDEMPOTENCY_KEY_CHARS_MAX

REPLAYED_HEADER: Final = "Idempotent-Replayed"

# What the framework gives to a route; None: the header was not sent.
IdempotencyKey: TypeAlias = Annotated[
    str | None,
    HeaderParameter(
        name=KEY_HEADER,
        description=f"1-{IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters, bare or quoted",
    ),
]


def key_of(header: str | None) -> str:
    """The key, "" when the header was not sent; InvalidArgumentError when it is sent empty.

    All else about it is checked by the service that keeps it.
    """
    if header is None:
        return ""
    key = unquoted(header.encode("latin-1"))
    if not key:
        message = f"must be 1-{IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters"
        raise InvalidArgumentError([FieldProblem(KEY_HEADER, message)])
    return key


def replayed_headers(replayed: bool) -> dict[str, str]:
    """The headers of an answer: whether an earlier request had made what it shows."""
    return {REPLAYED_HEADER: "true"} if replayed else {}
