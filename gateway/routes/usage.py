"""/api/usage"""

from litestar import get

from gateway.calls import Calls
from gateway.query import query
from gateway.shapes.usage import Usage, UsageQuery, from_proto, to_proto


@get("/api/usage", dependencies=query(UsageQuery))
async def query_usage(calls: Calls, asked: UsageQuery) -> Usage:
    """How much, for whom, of what kind, in which window."""
    return from_proto(await calls.call(calls.aggregator.QueryUsage, to_proto(asked)))


HANDLERS = [query_usage]
