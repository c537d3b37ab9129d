"""ETag, If-Match and If-None-Match (RFC 9110, 8.8.3, 13.1): services make and compare the tags."""

import re
from typing import Annotated, Final, Protocol, TypeAlias

from litestar.params import HeaderParameter

from services.kit.errors import FieldProblem, InvalidArgumentError

IF_MATCH: Final = "If-Match"
TAGS_MAX: Final = 20
_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_is_list = re.compile(rf"[ \t]*{_TAG}(?:[ \t]*,[ \t]*{_TAG})*[ \t]*").fullmatch
_each = re.compile(_TAG).findall

# What the framework gives to a route; None: the header was not sent.
IfMatch: TypeAlias = Annotated[
    str | None,
    HeaderParameter(
        name=IF_MATCH,
        description="ETag of an earlier answer: 412, and nothing changes, if it has changed since",
    ),
]


class _Tagged(Protocol):
    etag: str


def tags_of(header: str | None) -> list[str]:
    """The tags that one may be left as it is; [] when the header was not sent.

    A weak tag never matches here (RFC 9110, 13.1.1), so it is passed on as it is.
    """
    if header is None:
        return []
    if header.strip() == "*":
        return ["*"]
    tags = _each(header) if _is_list(header) else []
    if not 0 < len(tags) <= TAGS_MAX:
        message = f'must be "*" or up to {TAGS_MAX} entity tags such as "\\"abc\\""'
        raise InvalidArgumentError([FieldProblem(IF_MATCH, message)])
    return [tag if tag.startswith("W/") else tag[1:-1] for tag in tags]


def etag(message: _Tagged) -> dict[str, str]:
    """The header of an answer that shows the resource; none from a service without tags."""
    return {"ETag": f'"{message.etag}"'} if message.etag else {}


def is_known(etag_header: bytes, if_none_match: bytes) -> bool:
    """Whether the caller has the answer with this tag already; the comparison is the weak one."""
    if if_none_match.strip() == b"*":
        return True
    known = _each(if_none_match.decode("latin-1"))
    return etag_header.decode("latin-1") in [tag.removeprefix("W/") for tag in known]
