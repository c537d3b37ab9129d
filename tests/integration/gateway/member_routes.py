"""Cases of /api/sessions, /api/members and /api/invitations."""

from usageflow.accounts.v1 import accounts_pb2
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
MEMBER = pb.Member(
    id="mem_1",
    email="ada@example.com",
    name="Ada",
    role=accounts_pb2.ROLE_ADMIN,
    create_time=at(1),
    has_password=True,
)
MEMBER_JSON = {
    "id": "mem_1",
    "email": "ada@example.com",
    "name": "Ada",
    "role": "ADMIN",
    "createdAt": "2026-01-01T00:00:00Z",
    "signedInAt": None,
    "hasPassword": True,
}
INVITATION = pb.Invitation(
    id="ivt_1",
    email="bob@example.com",
    role=accounts_pb2.ROLE_VIEWER,
    invited_by="mem_1",
    create_time=at(1),
    expire_time=at(8),
)
INVITATION_JSON = {
    "id": "ivt_1",
    "email": "bob@example.com",
    "role": "VIEWER",
    "status": "EXPIRED",
    "invitedBy": "mem_1",
    "memberId": None,
    "createdAt": "2026-01-01T00:00:00Z",
    "expiresAt": "2026-01-08T00:00:00Z",
}
ACCEPTED = pb.Invitation()
ACCEPTED.CopyFrom(INVITATION)
ACCEPTED.accept_time.CopyFrom(at(2))
ACCEPTED.member_id = "mem_2"
CASES = [
    Case(
        "PATCH",
        "/api/sessions/current",
        "UpdateCurrentMember",
        pb.UpdateCurrentMemberRequest(name="Ada"),
        pb.UpdateCurrentMemberResponse(member=MEMBER),
        MEMBER_JSON,
        {"name": "Ada"},
        member=True,
    ),
    Case(
        "PUT",
        "/api/sessions/current/password",
        "SetPassword",
        pb.SetPasswordRequest(password="correct horse", current_password="wrong horse"),
        pb.SetPasswordResponse(member=MEMBER),
        MEMBER_JSON,
        {"password": "correct horse", "currentPassword": "wrong horse"},
        member=True,
    ),
    Case(
        "GET",
        "/api/members?limit=5&cursor=c",
        "ListMembers",
        pb.ListMembersRequest(page_size=5, page_token="c"),
        pb.ListMembersResponse(members=[MEMBER], next_page_token="next"),
        page(MEMBER_JSON),
    ),
    Case(
        "GET",
        "/api/members/mem_1",
        "GetMember",
        pb.GetMemberRequest(member_id="mem_1"),
        pb.GetMemberResponse(member=MEMBER),
        MEMBER_JSON,
    ),
    Case(
        "PATCH",
        "/api/members/mem_1",
        "UpdateMember",
        pb.UpdateMemberRequest(
            member_id="mem_1", email="ada@example.com", role=accounts_pb2.ROLE_ADMIN
        ),
        pb.UpdateMemberResponse(member=MEMBER),
        MEMBER_JSON,
        {"email": "ada@example.com", "role": "ADMIN"},
        member=True,
    ),
    Case(
        "DELETE",
        "/api/members/mem_1",
        "RemoveMember",
        pb.RemoveMemberRequest(member_id="mem_1"),
        pb.RemoveMemberResponse(),
        None,
        status=204,
        member=True,
    ),
    Case(
        "GET",
        "/api/invitations?limit=5&cursor=c",
        "ListInvitations",
        pb.ListInvitationsRequest(page_size=5, page_token="c"),
        pb.ListInvitationsResponse(invitations=[INVITATION], next_page_token="next"),
        page(INVITATION_JSON),
    ),
    Case(
        "GET",
        "/api/invitations",
        "ListInvitations",
        pb.ListInvitationsRequest(page_size=20),
        pb.ListInvitationsResponse(invitations=[ACCEPTED]),
        {
            "data": [INVITATION_JSON | {"status": "ACCEPTED", "memberId": "mem_2"}],
            "nextCursor": None,
        },
    ),
    Case(
        "POST",
        "/api/invitations",
        "CreateInvitation",
        pb.CreateInvitationRequest(email="bob@example.com", role=accounts_pb2.ROLE_VIEWER),
        pb.CreateInvitationResponse(invitation=INVITATION, token="ufi_x"),
        INVITATION_JSON | {"url": "http://billing.example/invitation?token=ufi_x"},
        {"email": "bob@example.com", "role": "VIEWER"},
        status=201,
        member=True,
    ),
    Case(
        "GET",
        "/api/invitations/ivt_1",
        "FindInvitation",
        pb.FindInvitationRequest(invitation_id="ivt_1"),
        pb.FindInvitationResponse(invitation=INVITATION),
        INVITATION_JSON,
    ),
    Case(
        "DELETE",
        "/api/invitations/ivt_1",
        "RevokeInvitation",
        pb.RevokeInvitationRequest(invitation_id="ivt_1"),
        pb.RevokeInvitationResponse(invitation=INVITATION),
        None,
        status=204,
        member=True,
    ),
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
