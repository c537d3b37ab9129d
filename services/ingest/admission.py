"""Refuses calls at once when those before them wait too long for being read.

A call's message is read only after the call was accepted, and under overload thousands of calls
would wait in line there, in front of the bounded queue of events, each for seconds.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from prometheus_client import Counter

from services.ingest.queue import RETRY_AFTER_S
from services.kit.errors import OverloadedError, to_status

# So many calls may wait to be read in any case.
UNREAD_ALWAYS = 32
# Overload is when each of the last calls waited longer than this: one slow caller is none.
WAIT_S_MAX = 0.25
WAITS_REMEMBERED = 8

_METHODS = frozenset(
    {
        "/usageflow.ingest.v1.IngestService/RecordEvents",
        "/usageflow.ingest.v1.IngestInternalService/RecordTenantEvents",
    }
)
_REFUSED = Counter("usageflow_ingest_calls_refused_unread", "Calls refused before they were read")
_STATUS = to_status(
    OverloadedError("Too many calls are waiting to be read; try again", retry_after_s=RETRY_AFTER_S)
)


class Admission(grpc.aio.ServerInterceptor):
    """Knows which calls that store events wait to be read, and for how long the last ones did."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        # gRPC answers each call in a task of its own; since when each waits.
        self._unread_since_s: dict[object, float] = {}
        self._waits_s = deque([0.0], maxlen=WAITS_REMEMBERED)
        # By method: each handler, and what is wrapped around it.
        self._wrapped: dict[str, tuple[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """grpc.aio calls this for every RPC, before it reads the message."""
        handler: Any = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method not in _METHODS:
            return handler
        if len(self._unread_since_s) >= UNREAD_ALWAYS and min(self._waits_s) > WAIT_S_MAX:
            _REFUSED.inc()
            # As a stream, of which nothing is read unless it is asked for.
            return grpc.stream_unary_rpc_method_handler(_refuse)
        call = asyncio.current_task()
        assert call is not None
        self._unread_since_s[call] = self._now_s()
        # Of a call that ends before its message has come.
        call.add_done_callback(lambda ended: self._unread_since_s.pop(ended, None))
        known, wrapped = self._wrapped.get(method, (None, None))
        if known is not handler:
            wrapped = self._wrap(handler)
            self._wrapped[method] = (handler, wrapped)
        return wrapped

    def _wrap(self, handler: Any) -> Any:
        async def answer(request: Any, servicer_context: Any) -> Any:
            begun_s = self._unread_since_s.pop(asyncio.current_task())
            self._waits_s.append(self._now_s() - begun_s)
            return await handler.unary_unary(request, servicer_context)

        return grpc.unary_unary_rpc_method_handler(
            answer, handler.request_deserializer, handler.response_serializer
        )


async def _refuse(requests: object, servicer_context: Any) -> None:
    await servicer_context.abort(_STATUS.code, _STATUS.details, _STATUS.trailing_metadata)
