"""Translates between proto and domain for test clocks; decides nothing but who may call."""

from usageflow.invoicer.v1 import test_clocks_pb2 as pb
from usageflow.invoicer.v1.test_clocks_pb2_grpc import TestClocksServiceServicer

from services.invoicer.clocks import Clock, ClockStatus
from services.invoicer.messages import time_or_none, timestamp
from services.invoicer.service.clocks import Clocks
from services.invoicer.service.paging import Page
from services.kit.auth import require_scope
from services.kit.errors import FieldProblem, InvalidArgumentError

_STATUS = "TEST_CLOCK_STATUS_"


class ClocksServicer(TestClocksServiceServicer):
    """What callers with an API key may do, in their own organization's test mode."""

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks

    async def CreateTestClock(
        self, request: pb.CreateTestClockRequest, context: object
    ) -> pb.CreateTestClockResponse:
        """Make a clock."""
        caller = require_scope("admin")
        time = time_or_none(request, "now", "now")
        made = await self._clocks.create_clock(
            caller.tenant, request.customer_id, time, by_key=caller.actor_id
        )
        return pb.CreateTestClockResponse(test_clock=_message(made))

    async def GetTestClock(
        self, request: pb.GetTestClockRequest, context: object
    ) -> pb.GetTestClockResponse:
        """A clock."""
        tenant = require_scope("read").tenant
        found = await self._clocks.get_clock(tenant, request.test_clock_id)
        return pb.GetTestClockResponse(test_clock=_message(found))

    async def ListTestClocks(
        self, request: pb.ListTestClocksRequest, context: object
    ) -> pb.ListTestClocksResponse:
        """A page of clocks."""
        tenant = require_scope("read").tenant
        page = Page(request.page_size, request.page_token)
        found, token = await self._clocks.list_clocks(tenant, request.customer_id, page)
        return pb.ListTestClocksResponse(
            test_clocks=[_message(each) for each in found], next_page_token=token
        )

    async def AdvanceTestClock(
        self, request: pb.AdvanceTestClockRequest, context: object
    ) -> pb.AdvanceTestClockResponse:
        """Let a clock go on."""
        caller = require_scope("admin")
        time = time_or_none(request, "to", "to")
        if time is None:
            raise InvalidArgumentError([FieldProblem("to", "is required")])
        found = await self._clocks.advance_clock(
            caller.tenant, request.test_clock_id, time, by_key=caller.actor_id
        )
        return pb.AdvanceTestClockResponse(test_clock=_message(found))

    async def EndTestClock(
        self, request: pb.EndTestClockRequest, context: object
    ) -> pb.EndTestClockResponse:
        """End a clock."""
        caller = require_scope("admin")
        found = await self._clocks.end_clock(
            caller.tenant, request.test_clock_id, by_key=caller.actor_id
        )
        return pb.EndTestClockResponse(test_clock=_message(found))


def _message(clock: Clock) -> pb.TestClock:
    advancing = clock.status is ClockStatus.ADVANCING
    return pb.TestClock(
        id=clock.id,
        customer_id=clock.customer_id,
        status=pb.TestClockStatus.Value(_STATUS + clock.status),
        now=timestamp(clock.time),
        target_time=timestamp(clock.target_time if advancing else None),
        create_time=timestamp(clock.create_time),
        end_time=timestamp(clock.end_time),
    )
