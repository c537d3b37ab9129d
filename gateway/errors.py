"""Errors as HTTP answers: the one place where a domain error becomes a status and a body."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import grpc
import msgspec
import structlog

from services.kit.errors import DomainError, FieldProblem

log = structlog.get_logger()

RETRY_AFTER_S_DEFAULT: Final = 1.0
_AWAY: Final = "This can't be done right now; try again, the same request is always safe"
_INTERNAL: Final = "Something went wrong here; it was logged under the requestId"

_STATUSES: Final[dict[grpc.StatusCode, int]] = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.ABORTED: 412,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
}


class ErrorDetail(msgspec.Struct, frozen=True):
    """What is wrong with one field."""

    field: str
    message: str


class ErrorBody(msgspec.Struct, frozen=True, rename="camel"):
    """The body of every answer that is no success."""

    error: str
    code: str
    details: list[ErrorDetail]
    request_id: str


class HttpError(Exception):
    """An answer that is no success: `message` for people, `code` for programs."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        problems: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.problems = problems
        self.headers = dict(headers or {})

    def body(self, request_id: str) -> bytes:
        """The contract's error body, JSON."""
        details = [ErrorDetail(problem.field, problem.message) for problem in self.problems]
        return msgspec.json.encode(ErrorBody(self.message, self.code, details, request_id))


def from_domain(error: DomainError) -> HttpError:
    """The answer that a domain error becomes; nothing internal shows in it."""
    status = _STATUSES.get(error.code, 500)
    if status >= 500:
        if status == 503:
            return unavailable(_AWAY, error.retry_after_s)
        return internal()
    headers = retry_after(error.retry_after_s) if status == 429 else {}
    return HttpError(status, error.reason, error.message, error.problems, headers)


def to_http(error: Exception) -> HttpError:
    """The answer that any error becomes; what nobody foresaw is logged."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, DomainError):
        return from_domain(error)
    log.error("request_failed", exc_info=error)
    return internal()


def unavailable(message: str, retry_after_s: float | None = None) -> HttpError:
    """503: nothing is lost by trying again after a while."""
    return HttpError(503, "unavailable", message, headers=retry_after(retry_after_s))


def internal() -> HttpError:
    """500: a defect of ours."""
    return HttpError(500, "internal", _INTERNAL)


def not_found() -> HttpError:
    """404: there is nothing under this path."""
    return HttpError(404, "not_found", "There is nothing under this path")


def method_not_allowed(allowed: str) -> HttpError:
    """405, with the methods that are allowed."""
    return HttpError(
        405, "method_not_allowed", f"This path takes only {allowed}", headers={"allow": allowed}
    )


def body_too_large(bytes_max: int) -> HttpError:
    """413: the body was not read to its end."""
    return HttpError(413, "body_too_large", f"The body must have at most {bytes_max} bytes")


def unsupported_media_type(expected: str) -> HttpError:
    """415: the body is of another kind."""
    return HttpError(415, "unsupported_media_type", f"Content-Type must be {expected}")


def retry_after(seconds: float | None) -> dict[str, str]:
    """The header that says when to try again, in whole seconds (RFC 9110, 10.2.3)."""
    return {"retry-after": str(max(1, math.ceil(seconds or RETRY_AFTER_S_DEFAULT)))}
