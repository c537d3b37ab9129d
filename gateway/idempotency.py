"""The header Idempotency-Key of requests that make something, and what answers say of it."""

from typing import Annotated, Any, Final, TypeAlias

from litestar import Request
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
    """The key, "" when the header was not sent; InvalidArgumentError when it is none."""
    if header is None:
        return ""
    key = unquoted(header.encode("latin-1"))
    if not (0 < len(key) <= IDEMPOTENCY_KEY_CHARS_MAX and key.isascii() and key.isprintable()):
        message = f"must be 1-{IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters"
        raise InvalidArgumentError([FieldProblem(KEY_HEADER, message)])
    return key


def key_of_request(request: Request[Any, Any, Any]) -> str:
    """The key of a POST, "" when it has none. PUT, PATCH and DELETE may be repeated without."""
    if request.method != "POST":
        return ""
    sent = request.headers.getall(KEY_HEADER, [])
    if len(sent) > 1:
        raise InvalidArgumentError([FieldProblem(KEY_HEADER, "must be sent once")])
    return key_of(sent[0] if sent else None)


def replayed_headers(replayed: bool) -> dict[str, str]:
    """The headers of an answer: whether an earlier request had made what it shows."""
    return {REPLAYED_HEADER: "true"} if replayed else {}
