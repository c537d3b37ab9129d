"""/api/audit"""

from typing import Final

from litestar import get
from litestar.response import Stream
from usageflow.accounts.v1 import accounts_pb2 as pb

from gateway.audit_csv import audit_csv
from gateway.calls import ApiCalls
from gateway.query import Asked, query
from gateway.shapes.audit import (
    AuditPage,
    AuditQuery,
    AuditSelection,
    Verification,
    VerificationQuery,
    from_proto,
    selection_to_proto,
    to_proto,
    verification_from_proto,
)

_CSV: Final = "text/csv"


@get("/api/audit", dependencies=query(AuditQuery))
async def list_audit_events(calls: ApiCalls, asked: Asked[AuditQuery]) -> AuditPage:
    """List what was done to the organization in this mode, newest first. Scope: admin."""
    answer = await calls.call(calls.accounts.ListAuditEvents, to_proto(asked))
    return AuditPage(
        data=[from_proto(event) for event in answer.events],
        next_cursor=answer.next_page_token or None,
    )


@get("/api/audit.csv", dependencies=query(AuditSelection), media_type=_CSV)
async def export_audit_events(calls: ApiCalls, asked: Asked[AuditSelection]) -> Stream:
    """The same as CSV, all of it, with the chain's numbers and hashes. Scope: admin."""
    headers = {"content-disposition": 'attachment; filename="audit.csv"'}
    lines = await audit_csv(calls, selection_to_proto(asked))
    return Stream(lines, media_type=_CSV, headers=headers)


@get("/api/audit/verification", dependencies=query(VerificationQuery))
async def verify_audit_log(calls: ApiCalls, asked: Asked[VerificationQuery]) -> Verification:
    """Work the chain of the audit log out again, 20,000 entries at most. Scope: admin."""
    request = pb.VerifyAuditLogRequest(after_number=asked.after)
    return verification_from_proto(await calls.call(calls.accounts.VerifyAuditLog, request))


HANDLERS = [list_audit_events, export_audit_events, verify_audit_log]
