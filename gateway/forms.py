"""Forms of our own pages, as browsers send them (application/x-www-form-urlencoded)."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from litestar import Request

from gateway.errors import body_too_large
from gateway.wire import has_type
from services.kit.errors import FieldProblem, InvalidArgumentError

FORM_TYPE: Final = "application/x-www-form-urlencoded"
# In a handler's `opt`: it takes a form, no JSON.
FORM: Final = "form"
FORM_BYTES_MAX: Final = 64 * 1024
FIELDS_MAX: Final = 200


def is_form(content_type: bytes | None) -> bool:
    """Whether a Content-Type header says that the body is a form."""
    return has_type(content_type, FORM_TYPE.encode())


async def read_form(request: Request[Any, Any, Any]) -> Mapping[str, str]:
    """The fields, of those with one name the last; InvalidArgumentError, HttpError 413."""
    body = await request.body()
    if len(body) > FORM_BYTES_MAX:
        raise body_too_large(FORM_BYTES_MAX)
    return dict(pairs_of(body, FIELDS_MAX))


def pairs_of(body: bytes, fields_max: int) -> list[tuple[str, str]]:
    """The names and texts of a form's body, in order; InvalidArgumentError."""
    try:
        return parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=fields_max,
        )
    except ValueError:
        message = f"must be a form of at most {fields_max} fields, percent-encoded in UTF-8"
        raise InvalidArgumentError([FieldProblem("body", message)]) from None
