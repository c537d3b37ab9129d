"""/dashboard/audit"""

import asyncio
from dataclasses import dataclass
from typing import Final

import msgspec
from litestar import Response, get
from usageflow.accounts.v1 import accounts_pb2, members_pb2

from gateway.dashboard.text import indented
from gateway.dashboard.visit import Visit, Visited
from gateway.shapes import audit
from gateway.shapes.audit import AuditEvent, AuditQuery, Verification
from services.kit.pages import PAGE_SIZE_MAX

PAGE_ROWS: Final = 50
# A press of the button follows the chain for so many calls, of 20,000 entries each.
VERIFY_CALLS_MAX: Final = 10
VERIFY_S: Final = 60.0
GROUPS: Final = (
    "webhook.*",
    "api_key.*",
    "organization.*",
    "event.*",
    "member.*",
    "portal_link.*",
    "credits.*",
    "metric.*",
    "quota.*",
)


@dataclass(frozen=True, slots=True)
class Row:
    """An entry with its details as people read them; none: ""."""

    event: AuditEvent
    details: str


@get("/dashboard/audit", include_in_schema=False)
async def show_audit(visit: Visited) -> Response[bytes]:
    """What was done, by whom, when, and what it was before."""
    return await _show(visit)


@get("/dashboard/audit/verification", include_in_schema=False)
async def verify_audit(visit: Visited) -> Response[bytes]:
    """The same, and whether the chain of its entries is whole."""
    calls, found = visit.calls, None
    for _ in range(VERIFY_CALLS_MAX):
        after = found.number if found else 0
        request = accounts_pb2.VerifyAuditLogRequest(after_number=after)
        answer = await calls.call(calls.accounts.VerifyAuditLog, request, VERIFY_S)
        found = audit.verification_from_proto(answer)
        if found.broken_number is not None or found.number >= found.head_number:
            break
    return await _show(visit, found)


async def _show(visit: Visit, verified: Verification | None = None) -> Response[bytes]:
    query = visit.request.query_params
    asked = AuditQuery(
        action=query.get("action", ""),
        target_id=query.get("targetId", ""),
        limit=PAGE_ROWS,
        cursor=query.get("cursor", ""),
    )
    answer, names = await asyncio.gather(
        visit.calls.call(visit.calls.accounts.ListAuditEvents, audit.to_proto(asked)), _names(visit)
    )
    return visit.page(
        "audit.html",
        rows=[_row(audit.from_proto(each)) for each in answer.events],
        cursor=answer.next_page_token,
        groups=GROUPS,
        filtered=bool(asked.action or asked.target_id),
        verified=verified,
        names=names,
    )


async def _names(visit: Visit) -> dict[str, str]:
    """Of members and API keys, by their ids; of those beyond a page the id has to do."""
    calls = visit.calls
    people, keys = await asyncio.gather(
        calls.call(
            calls.members.ListMembers, members_pb2.ListMembersRequest(page_size=PAGE_SIZE_MAX)
        ),
        calls.call(
            calls.accounts.ListApiKeys, accounts_pb2.ListApiKeysRequest(page_size=PAGE_SIZE_MAX)
        ),
    )
    names = {each.id: each.name for each in people.members}
    return names | {each.id: each.name for each in keys.api_keys}


def _row(event: AuditEvent) -> Row:
    details = bytes(event.details)
    return Row(event, indented(details.decode()) if msgspec.json.decode(details) else "")


HANDLERS = [show_audit, verify_audit]
