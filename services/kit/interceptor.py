"""What happens around every RPC: ids, deadline, who is calling, domain errors, counting."""

import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import grpc
import structlog
from prometheus_client import Counter, Histogram
from pydantic import SecretStr

from services.kit import auth, context, permissions, portal
from services.kit.errors import (
    DomainError,
    FieldProblem,
    InvalidArgumentError,
    UnauthenticatedError,
    UnavailableError,
    UnexpectedError,
    to_status,
)
from services.kit.grpc_client import (
    API_KEY_HEADER,
    CLIENT_ADDRESS_HEADER,
    IDEMPOTENCY_HEADER,
    INTERNAL_TOKEN_HEADER,
    REPLAYED_HEADER,
    SESSION_HEADER,
)
from services.kit.idempotency import Answers, KeyedCall
from services.kit.keys import NO_KEY_STARTS

log = structlog.get_logger()

_CALLS = Counter("usageflow_grpc_calls", "RPCs answered", ["method", "code"])
_SECONDS = Histogram("usageflow_grpc_call_seconds", "Time to answer an RPC", ["method"])

_OPEN_TO_ALL = ("/grpc.health.", "/grpc.reflection.")


class CallInterceptor:
    """Goes around every handler of a server, but health and reflection."""

    def __init__(
        self, keys: auth.KeyResolver, internal_token: SecretStr, answers: Answers | None = None
    ) -> None:
        """`answers` are those under idempotency keys; None: a service without."""
        self._keys = keys
        self._answers = answers
        self._token = internal_token.get_secret_value().encode()

    def around(self, handler: Any, method: str) -> Any:
        """`handler` of "/package.Service/Rpc" for those who may call it. Once a method: what
        grpc.aio calls an interceptor is asked at every call, and gets no request.
        """
        if method.startswith(_OPEN_TO_ALL):
            return handler
        call = _Call(self._keys, self._token, method, self._answers)
        serializers = (handler.request_deserializer, handler.response_serializer)
        if handler.unary_unary:
            wrapped = call.unary(handler.unary_unary)
            return grpc.unary_unary_rpc_method_handler(wrapped, *serializers)
        if handler.stream_unary:
            wrapped = call.unary(handler.stream_unary)
            return grpc.stream_unary_rpc_method_handler(wrapped, *serializers)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                call.stream(handler.unary_stream), *serializers
            )
        return grpc.stream_stream_rpc_method_handler(
            call.stream(handler.stream_stream), *serializers
        )


class _Call:
    """Wraps one method's handler."""

    def __init__(
        self, keys: auth.KeyResolver, token: bytes, method: str, answers: Answers | None
    ) -> None:
        self._answers = answers
        self._keys = keys
        self._token = token
        self._method = method
        # What would be worked out anew for each call.
        self._internal = "InternalService/" in method
        self._only_reads = permissions.only_reads(method.rpartition("/")[2])

    # Made with the first call, so that only methods that are called are exported.
    @cached_property
    def _answered(self) -> Counter:
        return _CALLS.labels(self._method, "OK")

    @cached_property
    def _seconds(self) -> Histogram:
        return _SECONDS.labels(self._method)

    def unary(self, behavior: Callable[[Any, Any], Awaitable[Any]]) -> Any:
        async def answer(request: Any, servicer_context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = time.perf_counter()
            code = "OK"
            try:
                principal = await self._enter(servicer_context, deadline_required=True)
                if principal is not None and principal.customer_id:
                    return await self._answer_of_customer(
                        principal, request, behavior, servicer_context
                    )
                if (keyed := self._keyed(request, servicer_context)) is None:
                    return await behavior(request, servicer_context)
                return await self._answer_once(keyed, behavior, servicer_context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                status = self._status(error)
                code = status.code.name
                await servicer_context.abort(status.code, status.details, status.trailing_metadata)
            finally:
                answered = code == "OK"
                (self._answered if answered else _CALLS.labels(self._method, code)).inc()
                self._seconds.observe(time.perf_counter() - started)

        return answer

    async def _answer_of_customer(
        self,
        principal: auth.Principal,
        request: Any,
        behavior: Callable[[Any, Any], Awaitable[Any]],
        servicer_context: grpc.aio.ServicerContext[Any, Any],
    ) -> Any:
        """For who is bound to a customer: nothing that is not the customer's goes in or out."""
        reach = portal.REACH[self._method]
        reach.check_request(principal, request)
        answer = await behavior(request, servicer_context)
        reach.check_answer(principal, answer)
        return answer

    def _keyed(
        self, request: Any, servicer_context: grpc.aio.ServicerContext[Any, Any]
    ) -> KeyedCall | None:
        """The call with its idempotency key; None when it has none, or changes nothing."""
        if self._answers is None or self._only_reads:
            return None
        principal, metadata = auth.principal_or_none(), _texts(servicer_context)
        key = metadata.get(IDEMPOTENCY_HEADER)
        # Some requests have a key of their own, which is kept as long as what it made.
        if principal is None or key is None or key == getattr(request, "idempotency_key", ""):
            return None
        credential = _credential(metadata)
        return KeyedCall(
            principal.tenant, principal.actor_id, credential, key, self._method, request
        )

    async def _answer_once(
        self,
        keyed: KeyedCall,
        behavior: Callable[[Any, Any], Awaitable[Any]],
        servicer_context: grpc.aio.ServicerContext[Any, Any],
    ) -> Any:
        assert self._answers is not None
        answer, replayed = await self._answers.answer(
            keyed, lambda: behavior(keyed.request, servicer_context)
        )
        if replayed:
            servicer_context.set_trailing_metadata(((REPLAYED_HEADER, "true"),))
        return answer

    def stream(self, behavior: Callable[[Any, Any], AsyncIterator[Any]]) -> Any:
        async def answer(
            request: Any, servicer_context: grpc.aio.ServicerContext[Any, Any]
        ) -> AsyncIterator[Any]:
            code = "OK"
            try:
                # A stream may stay open for as long as its caller likes.
                await self._enter(servicer_context, deadline_required=False)
                if hasattr(request, "__aiter__"):
                    request = self._each(request, servicer_context)
                async for response in behavior(request, servicer_context):
                    yield response
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                status = self._status(error)
                code = status.code.name
                await servicer_context.abort(status.code, status.details, status.trailing_metadata)
            finally:
                _CALLS.labels(self._method, code).inc()

        return answer

    async def _each(
        self, requests: AsyncIterator[Any], servicer_context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[Any]:
        """The messages of a stream, with a look at who sends each: a revoked key ends it."""
        async for request in requests:
            await self._enter(servicer_context, deadline_required=False)
            yield request

    async def _enter(
        self, servicer_context: grpc.aio.ServicerContext[Any, Any], *, deadline_required: bool
    ) -> auth.Principal | None:
        metadata = _texts(servicer_context)
        context.from_headers(metadata)
        auth.set_principal(None)
        principal = None
        if self._internal:
            if not self._is_own(metadata):
                raise UnauthenticatedError("Invalid internal token")
        else:
            principal = await self._keys.resolve(_credential(metadata))
            if principal.networks:
                # A gateway has its caller's address to tell; anybody else is where they are.
                told = metadata.get(CLIENT_ADDRESS_HEADER, "") if self._is_own(metadata) else ""
                auth.require_network(principal, told or peer_address(servicer_context.peer()))
            permissions.require(principal, self._method)
            auth.set_principal(principal)
        if deadline_required and servicer_context.time_remaining() is None:
            raise InvalidArgumentError(
                [FieldProblem("deadline", "every call must set a deadline (gRPC timeout)")]
            )
        return principal

    def _is_own(self, metadata: dict[str, str]) -> bool:
        """Whether one of UsageFlow's own processes calls."""
        given = metadata.get(INTERNAL_TOKEN_HEADER, "").encode()
        return hmac.compare_digest(given, self._token)

    def _status(self, error: Exception) -> Any:
        if not isinstance(error, DomainError):
            log.error("rpc_failed", method=self._method, exc_info=error)
            error = UnexpectedError("Something went wrong here; it was logged")
        elif isinstance(error, UnavailableError | UnexpectedError):
            log.warning("rpc_refused", method=self._method, error=error.message)
        return to_status(error)


def calling_key(servicer_context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The key or session that a call came with, for a stream that goes on looking whether it still
    holds.
    """
    return _credential(_texts(servicer_context))


def peer_address(peer: str) -> str:
    """The address in what gRPC tells of a peer: "ipv4:10.0.0.1:5000", "ipv6:%5B::1%5D:5000"; "" of
    a Unix socket.
    """
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""


def _texts(servicer_context: grpc.aio.ServicerContext[Any, Any]) -> dict[str, str]:
    return {
        key: value
        for key, value in servicer_context.invocation_metadata() or ()
        if isinstance(value, str)
    }


def _credential(metadata: dict[str, str]) -> str:
    """The key, session or portal link in the call's metadata; UnauthenticatedError when there is
    none.
    """
    session = metadata.get(SESSION_HEADER, "")
    if session:
        if not session.startswith(NO_KEY_STARTS):
            raise auth.invalid_session()
        return session
    secret = metadata.get(API_KEY_HEADER, "")
    if not secret:
        scheme, _, value = metadata.get("authorization", "").partition(" ")
        secret = value if scheme.lower() == "bearer" else ""
    if not secret:
        raise auth.missing_key()
    if secret.startswith(NO_KEY_STARTS):
        raise auth.invalid_key()
    return secret
