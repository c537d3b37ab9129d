"""Domain errors: one kind for each way a request can fail, with a code, a reason and metadata.

Services raise them; one interceptor turns them into a gRPC status with google.rpc details, and
the gateway turns them into HTTP. `from_rpc_error` is the way back on the client's side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

ERROR_DOMAIN = "usageflow"
# Problems travel as gRPC metadata, twice, of which most clients take 8 KiB.
PROBLEMS_BYTES_MAX = 2_000
PROBLEM_CHARS_MAX = 300
# A negative push-back tells the client's channel not to repeat the call (gRFC A6).
_NOT_AGAIN = ("grpc-retry-pushback-ms", "-1")


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field: its name as in the HTTP contract, and what is allowed."""

    field: str
    message: str


class DomainError(Exception):
    """A request that can't be done, for a reason the caller can be told."""

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    reason: str = "unknown"
    # Whether kit's channels may repeat a call that was answered so (grpc_client.py says which).
    repeated_by_channels = True

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        problems: Sequence[FieldProblem] = (),
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.reason
        self.problems = list(problems)
        self.retry_after_s = retry_after_s
        self.metadata = dict(metadata or {})


class InvalidArgumentError(DomainError):
    """The request's content is not valid; names every field that is wrong."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "invalid_argument"

    def __init__(self, problems: Sequence[FieldProblem], *, reason: str | None = None) -> None:
        sentence = "; ".join(f"{problem.field}: {problem.message}" for problem in problems)
        super().__init__(sentence, reason=reason, problems=problems)


class NotFoundError(DomainError):
    """The caller's organization and mode have no such thing."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "not_found"


class ConflictError(DomainError):
    """The name is taken by something else."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "conflict"


class PreconditionError(DomainError):
    """The thing is in a state that does not allow this."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "failed_precondition"


class StaleError(DomainError):
    """The thing is not what the caller's If-Match says any more; nothing was changed."""

    code = grpc.StatusCode.ABORTED
    reason = "precondition_failed"


class UnauthenticatedError(DomainError):
    """Nobody knows who is calling."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "unauthenticated"


class PermissionDeniedError(DomainError):
    """The caller may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "permission_denied"


class OverloadedError(DomainError):
    """A bounded queue is full; nothing was stored. Try again after `retry_after_s`."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "overloaded"


class UnavailableError(DomainError):
    """Something needed is away; the same request again, with the same key, is always safe."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "unavailable"


class NotYetError(UnavailableError):
    """As UnavailableError, after a wait: a channel that repeats calls must not wait once more."""

    repeated_by_channels = False


class UnexpectedError(DomainError):
    """Anything a service answers that is none of the above."""

    code = grpc.StatusCode.INTERNAL
    reason = "internal"


_BY_CODE: dict[grpc.StatusCode, type[DomainError]] = {
    kind.code: kind
    for kind in (
        NotFoundError,
        ConflictError,
        PreconditionError,
        StaleError,
        UnauthenticatedError,
        PermissionDeniedError,
        OverloadedError,
        UnavailableError,
        UnexpectedError,
    )
}


class FieldChecks:
    """Collects what is wrong with a request, so that all of it is told at once."""

    def __init__(self) -> None:
        self.problems: list[FieldProblem] = []

    def require(self, ok: bool, field: str, message: str) -> bool:
        """Note a problem unless `ok`; returns `ok`."""
        if not ok:
            self.problems.append(FieldProblem(field, message))
        return ok

    def decimal(self, text: str, field: str, **limits: Any) -> Decimal:
        """The exact decimal in `text` (limits as in money.parse_decimal); 0 when it is wrong."""
        from services.kit.money import parse_decimal

        try:
            return parse_decimal(text, field, **limits)
        except InvalidArgumentError as error:
            self.problems.extend(error.problems)
            return Decimal(0)

    def done(self) -> None:
        """Raise InvalidArgumentError when anything was wrong."""
        if self.problems:
            raise InvalidArgumentError(self.problems)


def to_status(error: DomainError) -> Any:
    """The grpc.Status of `error`, with ErrorInfo, BadRequest and RetryInfo details.

    Of very many problems the first are told, and how many more there are.
    """
    if isinstance(error, InvalidArgumentError):
        error = InvalidArgumentError(_told(error.problems), reason=error.reason)
    details = [
        error_details_pb2.ErrorInfo(
            reason=error.reason, domain=ERROR_DOMAIN, metadata=error.metadata
        )
    ]
    packed = [_pack(detail) for detail in details]
    if error.problems:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(
                field=problem.field, description=problem.message
            )
            for problem in error.problems
        ]
        packed.append(_pack(error_details_pb2.BadRequest(field_violations=violations)))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        packed.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    number = code_pb2.Code.Value(error.code.name)
    status: Any = rpc_status.to_status(
        status_pb2.Status(code=number, message=error.message, details=packed)
    )
    if error.repeated_by_channels:
        return status
    return status._replace(trailing_metadata=(*status.trailing_metadata, _NOT_AGAIN))


def _told(problems: Sequence[FieldProblem]) -> Sequence[FieldProblem]:
    told: list[FieldProblem] = []
    size = 0
    for problem in problems:
        short = FieldProblem(problem.field[:PROBLEM_CHARS_MAX], problem.message[:PROBLEM_CHARS_MAX])
        size += len(short.field.encode()) + len(short.message.encode())
        if told and size > PROBLEMS_BYTES_MAX:
            return [*told, FieldProblem("", f"and {len(problems) - len(told)} more problems")]
        told.append(short)
    return told


def _pack(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def from_rpc_error(error: grpc.aio.AioRpcError) -> DomainError:
    """The domain error that a service answered with.

    DEADLINE_EXCEEDED and CANCELLED become UnavailableError: the caller can't know more.
    """
    reason, retry_after_s, problems, metadata = None, None, [], {}
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    for detail in status.details if status else ():
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            problems = [FieldProblem(v.field, v.description) for v in bad.field_violations]
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
    message = error.details() or ""
    code = error.code()
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidArgumentError(problems or [FieldProblem("", message)], reason=reason)
    if code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
        return UnavailableError("The service did not answer in time", retry_after_s=1.0)
    kind = _BY_CODE.get(code, UnexpectedError)
    return kind(
        message,
        reason=reason,
        problems=problems,
        retry_after_s=retry_after_s,
        metadata=metadata,
    )
