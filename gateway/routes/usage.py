"""/api/usage"""

from litestar import get

from gateway.calls import ApiCalls
from gateway.query import Asked, query
from gateway.shapes.usage import Usage, UsageQuery, from_proto, to_proto


@get("/api/usage", dependencies=query(UsageQuery))
async def query_usage(calls: ApiCalls, asked: Asked[UsageQuery]) -> Usage:
    """How much, for whom, of what kind, in which window."""
    return from_proto(await calls.call(calls.aggregator.QueryUsage, to_proto(asked)))


HANDLERS = [query_usage]
