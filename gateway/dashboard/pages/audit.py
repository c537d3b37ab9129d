"""/dashboard/audit"""

from dataclasses import dataclass
from typing import Final

import msgspec
from litestar import Response, get

from gateway.dashboard.text import indented
from gateway.dashboard.visit import Visited
from gateway.shapes import audit
from gateway.shapes.audit import AuditEvent, AuditQuery

PAGE_ROWS: Final = 50
GROUPS: Final = ("webhook.*", "api_key.*", "organization.*", "event.*", "member.*")


@dataclass(frozen=True, slots=True)
class Row:
    """An entry with its details as people read them; none: ""."""

    event: AuditEvent
    details: str


@get("/dashboard/audit", include_in_schema=False)
async def show_audit(visit: Visited) -> Response[bytes]:
    """What was done, by whom, when, and what it was before."""
    query = visit.request.query_params
    asked = AuditQuery(
        action=query.get("action", ""),
        target_id=query.get("targetId", ""),
        limit=PAGE_ROWS,
        cursor=query.get("cursor", ""),
    )
    answer = await visit.calls.call(visit.calls.accounts.ListAuditEvents, audit.to_proto(asked))
    return visit.page(
        "audit.html",
        rows=[_row(audit.from_proto(each)) for each in answer.events],
        cursor=answer.next_page_token,
        groups=GROUPS,
        filtered=bool(asked.action or asked.target_id),
    )


def _row(event: AuditEvent) -> Row:
    details = bytes(event.details)
    return Row(event, indented(details.decode()) if msgspec.json.decode(details) else "")


HANDLERS = [show_audit]
