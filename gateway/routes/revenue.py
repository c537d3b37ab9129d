"""/api/revenue"""

from litestar import get

from gateway.calls import ApiCalls
from gateway.query import Asked, query
from gateway.shapes.revenue import Revenue, RevenueQuery, from_proto, to_proto


@get("/api/revenue", dependencies=query(RevenueQuery))
async def get_revenue(calls: ApiCalls, asked: Asked[RevenueQuery]) -> Revenue:
    """What was invoiced and credited in a time, and what accrues on running periods now.

    What accrues is worked out once a minute.
    """
    return from_proto(await calls.call(calls.invoicer.GetRevenue, to_proto(asked)))


HANDLERS = [get_revenue]
