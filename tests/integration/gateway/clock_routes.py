"""Cases of the routes that become RPCs of invoicer's TestClocksService."""

from usageflow.invoicer.v1 import test_clocks_pb2 as clocks

from tests.integration.gateway.route_cases import Case, at, page

_CLOCK = clocks.TestClock(
    id="clk_1",
    customer_id="user_1",
    status=clocks.TEST_CLOCK_STATUS_ADVANCING,
    now=at(2),
    target_time=at(3),
    create_time=at(1),
)
_CLOCK_JSON = {
    "id": "clk_1",
    "customerId": "user_1",
    "status": "ADVANCING",
    "now": "2026-01-02T00:00:00Z",
    "advancingTo": "2026-01-03T00:00:00Z",
    "createdAt": "2026-01-01T00:00:00Z",
    "endedAt": None,
}
_ENDED = clocks.TestClock(
    id="clk_2",
    status=clocks.TEST_CLOCK_STATUS_ENDED,
    now=at(2),
    create_time=at(1),
    end_time=at(4),
)
_ENDED_JSON = {
    "id": "clk_2",
    "customerId": None,
    "status": "ENDED",
    "now": "2026-01-02T00:00:00Z",
    "advancingTo": None,
    "createdAt": "2026-01-01T00:00:00Z",
    "endedAt": "2026-01-04T00:00:00Z",
}

CASES = [
    Case(
        "POST",
        "/api/test-clocks",
        "CreateTestClock",
        clocks.CreateTestClockRequest(customer_id="user_1", now=at(3)),
        clocks.CreateTestClockResponse(test_clock=_CLOCK),
        _CLOCK_JSON,
        {"customerId": "user_1", "now": "2026-01-03T00:00:00Z"},
        201,
    ),
    Case(
        "POST",
        "/api/test-clocks",
        "CreateTestClock",
        clocks.CreateTestClockRequest(),
        clocks.CreateTestClockResponse(test_clock=_CLOCK),
        _CLOCK_JSON,
        {"customerId": None},
        201,
    ),
    Case(
        "GET",
        "/api/test-clocks?customerId=user_1&limit=2&cursor=c",
        "ListTestClocks",
        clocks.ListTestClocksRequest(customer_id="user_1", page_size=2, page_token="c"),
        clocks.ListTestClocksResponse(test_clocks=[_ENDED], next_page_token="next"),
        page(_ENDED_JSON),
    ),
    Case(
        "GET",
        "/api/test-clocks/clk_1",
        "GetTestClock",
        clocks.GetTestClockRequest(test_clock_id="clk_1"),
        clocks.GetTestClockResponse(test_clock=_CLOCK),
        _CLOCK_JSON,
    ),
    Case(
        "POST",
        "/api/test-clocks/clk_1/advance",
        "AdvanceTestClock",
        clocks.AdvanceTestClockRequest(test_clock_id="clk_1", to=at(3)),
        clocks.AdvanceTestClockResponse(test_clock=_CLOCK),
        _CLOCK_JSON,
        {"to": "2026-01-03T00:00:00Z"},
    ),
    Case(
        "DELETE",
        "/api/test-clocks/clk_2",
        "EndTestClock",
        clocks.EndTestClockRequest(test_clock_id="clk_2"),
        clocks.EndTestClockResponse(test_clock=_ENDED),
        _ENDED_JSON,
    ),
]
