"""Usage as CSV (RFC 4180), a page at a time: it is never in memory as a whole."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime

from usageflow.aggregator.v1 import aggregator_pb2 as pb

from gateway.calls import Calls
from gateway.shapes.common import time_of

PAGE_ROWS = 2_000


async def usage_csv(calls: Calls, request: pb.QueryUsageRequest) -> AsyncIterator[bytes]:
    """The lines of everything that `request` asks for; the first page is read before this returns.

    DomainError. What fails later ends the stream without its end, which clients take for a broken
    transfer: it never looks whole.
    """
    request.page_size = PAGE_ROWS
    first = await calls.call(calls.aggregator.QueryUsage, request)
    # The defaults of the first page, so that all pages are about the same range.
    getattr(request, "from").CopyFrom(getattr(first, "from"))
    request.to.CopyFrom(first.to)
    request.usage_token = ""
    return _pages(calls, request, first)


async def _pages(
    calls: Calls, request: pb.QueryUsageRequest, page: pb.QueryUsageResponse
) -> AsyncIterator[bytes]:
    groups = list(request.group_by)
    yield csv_lines([["start", "end", *groups, "value"]])
    while True:
        yield csv_lines(_cells(row, groups) for row in page.rows)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
        page = await calls.call(calls.aggregator.QueryUsage, request)


def _cells(row: pb.UsageRow, groups: Sequence[str]) -> list[str]:
    values = [row.group[name] for name in groups]
    return [csv_time(time_of(row.start_time)), csv_time(time_of(row.end_time)), *values, row.value]


def csv_time(time: datetime) -> str:
    """To the second."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def csv_lines(rows: Iterable[Sequence[str]]) -> bytes:
    """Lines of RFC 4180."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerows(rows)
    return buffer.getvalue().encode()
