"""/api/test-clocks"""

from litestar import delete, get, post
from litestar.params import FromPath, JSONBody
from usageflow.invoicer.v1 import test_clocks_pb2 as pb

from gateway.calls import ApiCalls
from gateway.query import Asked, query
from gateway.shapes.common import timestamp
from gateway.shapes.test_clocks import (
    NewTestClock,
    TestClock,
    TestClockAdvance,
    TestClockPage,
    TestClocksQuery,
    from_proto,
)


@post("/api/test-clocks")
async def create_test_clock(calls: ApiCalls, data: JSONBody[NewTestClock]) -> TestClock:
    """Give a customer, or all of them, a time of their own, in test mode.

    It stands still until it is advanced. 409 test_clock_running when one of them has one.
    """
    request = pb.CreateTestClockRequest(customer_id=data.customer_id or "", now=timestamp(data.now))
    return from_proto((await calls.call(calls.clocks.CreateTestClock, request)).test_clock)


@get("/api/test-clocks", dependencies=query(TestClocksQuery))
async def list_test_clocks(calls: ApiCalls, asked: Asked[TestClocksQuery]) -> TestClockPage:
    """List test clocks, ended ones too, newest first."""
    request = pb.ListTestClocksRequest(
        customer_id=asked.customer_id, page_size=asked.limit, page_token=asked.cursor
    )
    answer = await calls.call(calls.clocks.ListTestClocks, request)
    return TestClockPage(
        data=[from_proto(clock) for clock in answer.test_clocks],
        next_cursor=answer.next_page_token or None,
    )


@get("/api/test-clocks/{test_clock_id:str}")
async def get_test_clock(calls: ApiCalls, test_clock_id: FromPath[str]) -> TestClock:
    """One test clock; wait until it is READY."""
    request = pb.GetTestClockRequest(test_clock_id=test_clock_id)
    return from_proto((await calls.call(calls.clocks.GetTestClock, request)).test_clock)


@post("/api/test-clocks/{test_clock_id:str}/advance", status_code=200)
async def advance_test_clock(
    calls: ApiCalls, test_clock_id: FromPath[str], data: JSONBody[TestClockAdvance]
) -> TestClock:
    """Let a test clock go on: trials and periods end, invoices are made, collected and tried again,
    webhooks are sent.

    All of it in its order and at its own time; usage that was accepted before is billed with its
    period. A period's invoice comes when the grace after it is over. 409 test_clock_advancing
    until it is READY again, which waits until it is known what came of each payment.
    """
    request = pb.AdvanceTestClockRequest(test_clock_id=test_clock_id, to=timestamp(data.to))
    return from_proto((await calls.call(calls.clocks.AdvanceTestClock, request)).test_clock)


@delete("/api/test-clocks/{test_clock_id:str}", status_code=200)
async def end_test_clock(calls: ApiCalls, test_clock_id: FromPath[str]) -> TestClock:
    """Stop a test clock. What was made stays; its customers' time never goes back: it stands still
    until the real time has caught up.
    """
    request = pb.EndTestClockRequest(test_clock_id=test_clock_id)
    return from_proto((await calls.call(calls.clocks.EndTestClock, request)).test_clock)


HANDLERS = [
    create_test_clock,
    list_test_clocks,
    get_test_clock,
    advance_test_clock,
    end_test_clock,
]
