"""Translates between proto and domain, and sees that a revoked key sees nothing more."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime

import grpc
from usageflow.aggregator.v1 import live_pb2 as pb
from usageflow.aggregator.v1.live_pb2_grpc import LiveUsageServiceServicer

from services.aggregator.live.watching import LiveUsage
from services.aggregator.servicer import question_of, usage_response
from services.kit import usage_token
from services.kit.auth import KeyResolver, require_scope
from services.kit.errors import PermissionDeniedError
from services.kit.interceptor import calling_key


class LiveUsageServicer(LiveUsageServiceServicer):
    """What callers with an API key may watch, in their own organization and mode."""

    def __init__(self, live: LiveUsage, keys: KeyResolver) -> None:
        self._live = live
        self._keys = keys

    async def WatchUsage(
        self,
        request: pb.WatchUsageRequest,
        context: grpc.aio.ServicerContext[pb.WatchUsageRequest, pb.WatchUsageResponse],
    ) -> AsyncIterator[pb.WatchUsageResponse]:
        """A question's answers as they change; scope read."""
        caller = require_scope("read")
        tenant = caller.tenant
        secret = calling_key(context)
        question = request.question
        token = usage_token.decode(question.usage_token) if question.usage_token else None

        async def still_allowed() -> datetime | None:
            principal = await self._keys.resolve(secret)
            # Other networks than before: whoever asks again is looked at again.
            moved = principal.networks != caller.networks
            if principal.tenant != tenant or not principal.may("read") or moved:
                raise PermissionDeniedError("The API key has changed", reason="missing_scope")
            return principal.time_of(question.customer_id)

        asked = replace(question_of(question), now=caller.time_of(question.customer_id))
        watch = self._live.watch(tenant, asked, token, still_allowed)
        async with aclosing(watch) as answers:
            async for usage in answers:
                yield pb.WatchUsageResponse(usage=usage_response(usage))
