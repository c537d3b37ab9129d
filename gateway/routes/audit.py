"""/api/audit"""

from litestar import get

from gateway.calls import ApiCalls
from gateway.query import Asked, query
from gateway.shapes.audit import AuditPage, AuditQuery, from_proto, to_proto


@get("/api/audit", dependencies=query(AuditQuery))
async def list_audit_events(calls: ApiCalls, asked: Asked[AuditQuery]) -> AuditPage:
    """List what was done to the organization in this mode, newest first. Scope: admin."""
    answer = await calls.call(calls.accounts.ListAuditEvents, to_proto(asked))
    return AuditPage(
        data=[from_proto(event) for event in answer.events],
        next_cursor=answer.next_page_token or None,
    )


HANDLERS = [list_audit_events]
