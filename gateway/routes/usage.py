"""/api/usage"""

from typing import Annotated, Final, TypeAlias

from litestar import get
from litestar.background_tasks import BackgroundTask
from litestar.di import NamedDependency
from litestar.params import HeaderParameter
from litestar.response import Stream
from usageflow.aggregator.v1 import aggregator_pb2

from gateway.billing_periods import set_windows
from gateway.calls import ApiCalls
from gateway.query import Asked, query
from gateway.shapes import reconciliation
from gateway.shapes.reconciliation import Reconciliation
from gateway.shapes.usage import (
    Activity,
    ActivityQuery,
    LiveQuery,
    Usage,
    UsageQuery,
    UsageSelection,
    activity_from_proto,
    activity_to_proto,
    from_proto,
    live_to_proto,
    selection_to_proto,
    to_proto,
)
from gateway.usage_csv import usage_csv
from gateway.usage_live import LiveStreams
from services.kit.usage_token import join

_CSV: Final = "text/csv"
_EVENTS: Final = "text/event-stream"
_UsageToken: TypeAlias = Annotated[
    str,
    HeaderParameter(
        name="usage-token", description="usage-token of an answer: the same as usageToken"
    ),
]


@get("/api/usage", dependencies=query(UsageQuery))
async def query_usage(
    calls: ApiCalls, asked: Asked[UsageQuery], usage_token: _UsageToken = ""
) -> Usage:
    """How much, for whom, of what kind, in which window.

    With a usage token, what the answer that carried it acknowledged is in; 503 with Retry-After
    when it has not been counted within some seconds.
    """
    request = to_proto(asked, join([asked.usage_token, usage_token]))
    await set_windows(calls, request, asked.subscription_id)
    return from_proto(await calls.call(calls.aggregator.QueryUsage, request))


@get("/api/usage.csv", dependencies=query(UsageSelection), media_type=_CSV)
async def export_usage(
    calls: ApiCalls, asked: Asked[UsageSelection], usage_token: _UsageToken = ""
) -> Stream:
    """The same as CSV, however many rows: start, end, a column for each of groupBy, value.

    It is streamed. Rows are of different moments: each counts what is counted when it is sent.
    """
    request = selection_to_proto(asked, join([asked.usage_token, usage_token]))
    await set_windows(calls, request, asked.subscription_id)
    headers = {"content-disposition": 'attachment; filename="usage.csv"'}
    return Stream(await usage_csv(calls, request), media_type=_CSV, headers=headers)


@get("/api/usage/live", dependencies=query(LiveQuery), media_type=_EVENTS)
async def watch_usage(
    calls: ApiCalls,
    live: NamedDependency[LiveStreams],
    asked: Asked[LiveQuery],
    usage_token: _UsageToken = "",
) -> Stream:
    """The same as server-sent events: the answer now, and again whenever its rows have changed.

    Each event is called "usage" and has the answer as its data; at most two come a second, and who
    reads slowly gets the newest only. A comment comes when there is nothing for 15 s. The stream
    ends after an hour at most, or when the key is revoked; connect again. 429 when the organization
    watches too much.
    """
    question = live_to_proto(asked, join([asked.usage_token, usage_token]))
    await set_windows(calls, question, asked.subscription_id)
    stream = await live.open(calls, question)
    return Stream(
        stream.events(),
        media_type=_EVENTS,
        # Proxies must not wait for more.
        headers={"x-accel-buffering": "no"},
        background=BackgroundTask(stream.close),
    )


@get("/api/usage/activity", dependencies=query(ActivityQuery))
async def get_activity(calls: ApiCalls, asked: Asked[ActivityQuery]) -> Activity:
    """How many events were counted of each metric, whatever its figure is; voided ones are not."""
    request = activity_to_proto(asked)
    return activity_from_proto(await calls.call(calls.aggregator.GetActivity, request))


@get("/api/usage/reconciliation")
async def get_reconciliation(calls: ApiCalls) -> Reconciliation:
    """Where usage is not what was accepted, and up to when that was looked at.

    Differences are repaired by themselves.
    """
    request = aggregator_pb2.GetReconciliationRequest()
    answer = await calls.call(calls.aggregator.GetReconciliation, request)
    return reconciliation.from_proto(answer)


HANDLERS = [query_usage, export_usage, watch_usage, get_activity, get_reconciliation]
