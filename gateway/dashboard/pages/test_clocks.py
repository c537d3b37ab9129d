"""/dashboard/test-clocks"""

from typing import Final
from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.invoicer.v1 import test_clocks_pb2 as pb

from gateway.dashboard.forms import local_time
from gateway.dashboard.visit import Visit, Visited
from gateway.shapes import test_clocks
from gateway.shapes.common import timestamp
from services.kit.errors import DomainError

PAGE_ROWS: Final = 50
PATH: Final = "/dashboard/test-clocks"


@get(PATH, include_in_schema=False)
async def list_clocks(visit: Visited) -> Response[bytes]:
    """The test clocks, and the form for one more."""
    return await _list(visit)


@post(PATH, include_in_schema=False)
async def create_clock(visit: Visited) -> Response[bytes]:
    """Give a customer, or all, a time of their own."""
    form = visit.form
    try:
        now = form.get("now")
        request = pb.CreateTestClockRequest(
            customer_id=form.get("customerId", ""),
            now=timestamp(local_time(now, "now", visit.zone) if now else None),
        )
        await visit.calls.call(visit.calls.clocks.CreateTestClock, request)
    except DomainError as error:
        form.refuse(error)
        return await _list(visit, 400)
    return visit.go(PATH, "created")


@get(PATH + "/{clock_id:str}", include_in_schema=False)
async def show_clock(visit: Visited, clock_id: FromPath[str]) -> Response[bytes]:
    """One clock: what it shows, and the form that lets it go on."""
    return await _show(visit, clock_id)


@post(PATH + "/{clock_id:str}/advance", include_in_schema=False)
async def advance_clock(visit: Visited, clock_id: FromPath[str]) -> Response[bytes]:
    """Let a clock go on."""
    try:
        to = local_time(visit.form.get("to", ""), "to", visit.zone)
        request = pb.AdvanceTestClockRequest(test_clock_id=clock_id, to=timestamp(to))
        await visit.calls.call(visit.calls.clocks.AdvanceTestClock, request)
    except DomainError as error:
        visit.form.refuse(error)
        return await _show(visit, clock_id, 400)
    return visit.go(_path(clock_id), "advancing")


@post(PATH + "/{clock_id:str}/end", include_in_schema=False)
async def end_clock(visit: Visited, clock_id: FromPath[str]) -> Response[bytes]:
    """Stop a clock."""
    request = pb.EndTestClockRequest(test_clock_id=clock_id)
    await visit.calls.call(visit.calls.clocks.EndTestClock, request)
    return visit.go(_path(clock_id), "clock-ended")


async def _list(visit: Visit, status: int = 200) -> Response[bytes]:
    request = pb.ListTestClocksRequest(
        page_size=PAGE_ROWS, page_token=visit.request.query_params.get("cursor", "")
    )
    answer = await visit.calls.call(visit.calls.clocks.ListTestClocks, request)
    return visit.page(
        "test_clocks.html",
        status,
        clocks=[test_clocks.from_proto(each) for each in answer.test_clocks],
        cursor=answer.next_page_token,
    )


async def _show(visit: Visit, clock_id: str, status: int = 200) -> Response[bytes]:
    request = pb.GetTestClockRequest(test_clock_id=clock_id)
    answer = await visit.calls.call(visit.calls.clocks.GetTestClock, request)
    return visit.page("test_clock.html", status, clock=test_clocks.from_proto(answer.test_clock))


def _path(clock_id: str) -> str:
    return f"{PATH}/{quote(clock_id, safe='')}"


HANDLERS = [list_clocks, create_clock, show_clock, advance_clock, end_clock]
