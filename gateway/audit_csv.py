"""The audit log as CSV, a page at a time: it is never in memory as a whole."""

from collections.abc import AsyncIterator
from typing import Final

from usageflow.accounts.v1 import accounts_pb2 as pb

from gateway.calls import Calls
from gateway.shapes.common import time_of
from gateway.usage_csv import csv_lines

PAGE_ROWS: Final = 100
_COLUMNS: Final = (
    *("number", "createdAt", "id", "action", "targetId", "actorId", "requestId", "details"),
    *("previousHash", "hash"),
)
# A cell that begins so is a formula to spreadsheets; a details' or request id's text may.
_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")


async def audit_csv(calls: Calls, request: pb.ListAuditEventsRequest) -> AsyncIterator[bytes]:
    """The lines of everything that `request` asks for; the first page is read before this returns.

    DomainError. What fails later ends the stream without its end, which clients take for a broken
    transfer: it never looks whole.
    """
    request.page_size = PAGE_ROWS
    return _pages(calls, request, await calls.call(calls.accounts.ListAuditEvents, request))


async def _pages(
    calls: Calls, request: pb.ListAuditEventsRequest, page: pb.ListAuditEventsResponse
) -> AsyncIterator[bytes]:
    yield csv_lines([_COLUMNS])
    while True:
        yield csv_lines(map(_cells, page.events))
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
        page = await calls.call(calls.accounts.ListAuditEvents, request)


def _cells(event: pb.AuditEvent) -> list[str]:
    texts = (event.id, event.action, event.target_id, event.key_id, event.request_id)
    return [
        str(event.number),
        f"{time_of(event.time):%Y-%m-%dT%H:%M:%S.%fZ}",
        *("'" + text if text.startswith(_FORMULAS) else text for text in texts),
        event.details_json,
        event.previous_hash,
        event.hash,
    ]
