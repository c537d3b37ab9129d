"""Cases of /api/sessions."""

from usageflow.accounts.v1 import members_pb2 as pb

from tests.integration.gateway.route_cases import Case, at, page

SESSION = pb.Session(
    id="ses_1",
    create_time=at(1),
    use_time=at(2),
    expire_time=at(31),
    address="192.0.2.1",
    user_agent="Firefox",
    current=True,
)
SESSION_JSON = {
    "id": "ses_1",
    "createdAt": "2026-01-01T00:00:00Z",
    "usedAt": "2026-01-02T00:00:00Z",
    "expiresAt": "2026-01-31T00:00:00Z",
    "address": "192.0.2.1",
    "userAgent": "Firefox",
    "current": True,
}
CASES = [
    Case(
        "GET",
        "/api/sessions?limit=5&cursor=c",
        "ListSessions",
        pb.ListSessionsRequest(page_size=5, page_token="c"),
        pb.ListSessionsResponse(sessions=[SESSION], next_page_token="next"),
        page(SESSION_JSON),
        member=True,
    ),
    Case(
        "DELETE",
        "/api/sessions/ses_1",
        "RevokeSession",
        pb.RevokeSessionRequest(session_id="ses_1"),
        pb.RevokeSessionResponse(),
        None,
        status=204,
        member=True,
    ),
]
