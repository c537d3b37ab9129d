"""Members of a running stack: a link signs in, roles hold in every service, strangers stay out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from usageflow.accounts.v1 import members_pb2, members_pb2_grpc
from usageflow.ingest.v1 import ingest_pb2, ingest_pb2_grpc

from cli.connection import Connection
from services.kit.signatures import Signatures
from tests.e2e.api import (
    REQUEST_TIMEOUT_S,
    Api,
    first_organization_id,
    internal_metadata,
    internal_token,
    new_key,
    new_organization,
    wait_for,
)


def sign_in_link(stack: Connection, home: Path, organization_id: str) -> str:
    """The token of a link for the organization's owner."""
    with grpc.insecure_channel(stack.grpc["accounts"]) as channel:
        return str(
            members_pb2_grpc.MembersInternalServiceStub(channel)
            .CreateSignInLink(
                members_pb2.CreateSignInLinkRequest(organization_id=organization_id),
                timeout=REQUEST_TIMEOUT_S,
                metadata=internal_metadata(home),
            )
            .token
        )


class Browser:
    """Somebody's browser, which keeps cookies."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=REQUEST_TIMEOUT_S, trust_env=False)
        self.http.headers["origin"] = url

    def sign_in(self, token: str) -> httpx.Response:
        """Press the button of a link; what programs of ours in the page need is kept."""
        answer = self.http.post("/sign-in", data={"token": token})
        if answer.status_code == 303:
            current = self.http.get("/api/sessions/current").json()
            self.http.headers["x-csrf-token"] = current["csrfToken"]
        return answer


@pytest.fixture(scope="module")
def owner(stack: Connection, stack_home: Path) -> Iterator[Browser]:
    """The browser of the stack's first owner, signed in."""
    browser = Browser(stack.http)
    token = sign_in_link(stack, stack_home, first_organization_id(stack_home))
    assert browser.http.get(f"/sign-in?token={token}").status_code == 200
    assert browser.sign_in(token).status_code == 303
    assert Browser(stack.http).sign_in(token).status_code == 401
    yield browser
    browser.http.close()


def invite(browser: Browser, stack: Connection, role: str) -> Browser:
    """The browser of somebody whom the member invites, and who accepts."""
    email = f"{new_key(role.lower())}@example.com"
    invited = browser.http.post("/api/invitations", json={"email": email, "role": role})
    assert invited.status_code == 201, invited.text
    url = invited.json()["url"]
    assert url.startswith(stack.http + "/invitation?token=")
    joining = Browser(stack.http)
    assert joining.http.get(url).status_code == 200
    form = {"token": url.rpartition("=")[2], "name": role.title(), "password": ""}
    assert joining.http.post("/invitation", data=form).status_code == 303
    current = joining.http.get("/api/sessions/current").json()
    assert (current["member"]["email"], current["member"]["role"]) == (email, role)
    joining.http.headers["x-csrf-token"] = current["csrfToken"]
    return joining


PLAN = {"name": "P", "currency": "USD", "basePrice": "1.00", "metrics": []}
HOOK = {"url": "http://127.0.0.1:9/", "events": ["invoice.created"]}
EVERYBODY = ("OWNER", "ADMIN", "DEVELOPER", "VIEWER")
# One route of each kind and part, and who may call it. What kit's interceptor lets through of every
# RPC is told by tests/integration/gateway/test_roles.py; here the services are the real ones.
BY_ROLE: list[tuple[str, str, Any, tuple[str, ...]]] = [
    ("GET", "/api/events", None, EVERYBODY),
    ("GET", "/api/plans", None, EVERYBODY),
    ("GET", "/api/webhooks", None, EVERYBODY),
    ("GET", "/api/keys", None, EVERYBODY),
    ("GET", "/api/members", None, EVERYBODY),
    ("GET", "/api/members/mem_0", None, EVERYBODY),
    ("GET", "/api/invitations/ivt_0", None, EVERYBODY),
    ("GET", "/api/keys/key_0", None, EVERYBODY),
    ("GET", "/api/invitations", None, EVERYBODY),
    ("GET", "/api/audit", None, EVERYBODY),
    ("GET", "/api/sessions", None, EVERYBODY),
    ("PATCH", "/api/sessions/current", {"name": "Somebody"}, EVERYBODY),
    ("POST", "/api/metrics", {"key": "BY_ROLE"}, ("OWNER", "ADMIN")),
    ("POST", "/api/plans", PLAN, ("OWNER", "ADMIN")),
    ("POST", "/api/events/evt_0/void", {}, ("OWNER", "ADMIN")),
    ("PATCH", "/api/organization", {}, ("OWNER", "ADMIN")),
    ("DELETE", "/api/invitations/ivt_0", None, ("OWNER", "ADMIN")),
    ("GET", "/api/portal-links", None, EVERYBODY),
    ("DELETE", "/api/portal-links/ptl_0", None, ("OWNER", "ADMIN")),
    ("POST", "/api/webhooks", HOOK, ("OWNER", "DEVELOPER")),
    ("POST", "/api/keys", {"scopes": ["track"]}, ("OWNER", "DEVELOPER")),
    ("DELETE", "/api/members/mem_0", None, ("OWNER",)),
    ("PATCH", "/api/members/mem_0", {"name": "X"}, ("OWNER",)),
]


@pytest.mark.parametrize("role", EVERYBODY)
def test_a_member_may_do_what_their_role_is_for(
    owner: Browser, stack: Connection, role: str
) -> None:
    member = invite(owner, stack, role)
    for method, path, body, roles in BY_ROLE:
        answer = member.http.request(method, path, json=body)
        told = (answer.status_code, answer.text)
        if role in roles:
            # What is not there is looked for only by those who may.
            assert answer.is_success or answer.status_code == 404, (method, path, told)
        else:
            assert (answer.status_code, answer.json()["code"]) == (403, "missing_role"), told
    member.http.close()


def test_a_key_is_no_member(stack: Connection) -> None:
    api = Api(stack.http, stack.api_key)
    assert api.get("/api/members")["data"]
    body = {"email": "thief@example.com", "role": "OWNER"}
    for answer in (
        api.http.post("/api/invitations", json=body),
        api.http.get("/api/sessions/current"),
        api.http.get("/api/sessions"),
        api.http.put("/api/sessions/current/password", json={"password": "x" * 12}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "members_only")


def test_who_is_removed_or_gets_another_role_feels_it_at_once(
    owner: Browser, stack: Connection
) -> None:
    admin = invite(owner, stack, "ADMIN")
    mine = admin.http.get("/api/sessions/current").json()["member"]["id"]
    assert admin.http.post("/api/plans", json=PLAN).status_code == 201
    changed = owner.http.patch(f"/api/members/{mine}", json={"role": "VIEWER"})
    assert changed.status_code == 200
    wait_for(
        "the new role", lambda: admin.http.post("/api/plans", json=PLAN).status_code == 403, 20
    )
    assert owner.http.delete(f"/api/members/{mine}").status_code == 204
    wait_for("the end", lambda: admin.http.get("/api/plans").status_code == 401, 20)
    told = owner.http.get("/api/audit", params={"targetId": mine}).json()["data"]
    assert [each["action"] for each in told][:2] == ["member.removed", "member.updated"]
    admin.http.close()


def test_a_member_or_invitation_that_is_another_by_now_stays(
    owner: Browser, stack: Connection
) -> None:
    admin = invite(owner, stack, "ADMIN")
    member = f"/api/members/{admin.http.get('/api/sessions/current').json()['member']['id']}"
    body = {"email": f"{new_key('guest')}@example.com", "role": "VIEWER"}
    invitation = f"/api/invitations/{owner.http.post('/api/invitations', json=body).json()['id']}"
    seen = owner.http.get(member).headers["etag"]
    assert admin.http.patch("/api/sessions/current", json={"name": "Renamed"}).is_success
    now = owner.http.get(member)
    assert now.json()["name"] == "Renamed"
    for method, path, tag in (
        ("PATCH", member, seen),
        ("DELETE", member, seen),
        ("DELETE", invitation, now.headers["etag"]),
    ):
        change = {"role": "VIEWER"} if method == "PATCH" else None
        refused = owner.http.request(method, path, json=change, headers={"If-Match": tag})
        assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
    assert owner.http.get(member).json() == now.json()
    assert owner.http.get(invitation).json()["status"] == "OPEN"
    known = {"If-Match": now.headers["etag"]}
    changed = owner.http.patch(member, json={"role": "VIEWER"}, headers=known)
    assert changed.json()["role"] == "VIEWER"
    for path, tag in (
        (member, changed.headers["etag"]),
        (invitation, owner.http.get(invitation).headers["etag"]),
    ):
        assert owner.http.delete(path, headers={"If-Match": tag}).status_code == 204
    assert owner.http.get(member).status_code == 404
    assert owner.http.get(invitation).json()["status"] == "REVOKED"
    admin.http.close()


def test_a_password_lets_in_and_too_many_wrong_ones_do_not(
    owner: Browser, stack: Connection
) -> None:
    member = invite(owner, stack, "VIEWER")
    email = member.http.get("/api/sessions/current").json()["member"]["email"]
    password = {"password": "correct horse battery"}
    assert member.http.put("/api/sessions/current/password", json=password).status_code == 200
    other = Browser(stack.http)
    assert other.http.post("/sign-in", data={"email": email, **password}).status_code == 303
    assert other.http.get("/api/plans").status_code == 200
    wrong = {"email": email, "password": "wrong"}
    # Each wait is twice as long as the one before: sooner or later somebody comes too early.
    codes = (Browser(stack.http).http.post("/sign-in", data=wrong).status_code for _ in range(20))
    assert next(code for code in codes if code != 401) == 429
    other.http.close()
    member.http.close()


def test_an_owner_reads_and_changes_what_all_services_have(
    owner: Browser, stack: Connection
) -> None:
    metric = owner.http.post("/api/metrics", json={"key": "PEOPLE"})
    assert metric.status_code == 201, metric.text
    plan = {"name": "People", "currency": "USD", "basePrice": "1.00", "metrics": []}
    assert owner.http.post("/api/plans", json=plan).status_code == 201
    hook = {"url": "http://127.0.0.1:9/", "events": ["invoice.created"]}
    endpoint = owner.http.post("/api/webhooks", json=hook)
    assert endpoint.status_code == 201, endpoint.text
    assert owner.http.delete(f"/api/webhooks/{endpoint.json()['id']}").status_code == 204
    for name in (
        "events",
        "metrics",
        "plans",
        "customers",
        "invoices",
        "webhooks",
        "keys",
        "audit",
    ):
        assert owner.http.get(f"/api/{name}").status_code == 200, name
    # What a key of the same organization and mode sees.
    assert "PEOPLE" in str(Api(stack.http, stack.api_key).get("/api/metrics", limit="100"))


def test_a_member_sends_no_usage(owner: Browser, stack: Connection) -> None:
    event = {"metric": "PEOPLE", "amount": 1}
    assert owner.http.post("/api/track", json=event).status_code == 401
    credential = str(owner.http.cookies["usageflow-session"])
    with grpc.insecure_channel(stack.grpc["ingest"]) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            ingest_pb2_grpc.IngestServiceStub(channel).RecordEvents(
                ingest_pb2.RecordEventsRequest(events=[]),
                timeout=REQUEST_TIMEOUT_S,
                metadata=(("x-usageflow-session", credential),),
            )
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_owners_of_two_organizations_see_nothing_of_each_other(
    owner: Browser, stack: Connection, stack_home: Path
) -> None:
    theirs = Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))
    stranger = Browser(stack.http)
    organization_id = theirs.get("/api/organization")["id"]
    assert stranger.sign_in(sign_in_link(stack, stack_home, organization_id)).is_redirect
    assert stranger.http.get("/api/metrics").json()["data"] == []
    members = [each["id"] for each in owner.http.get("/api/members").json()["data"]]
    body = {"email": "ada@example.com", "role": "VIEWER"}
    invitation = owner.http.post("/api/invitations", json=body).json()["id"]
    for method, path, body in (
        ("GET", f"/api/members/{members[-1]}", {}),
        ("PATCH", f"/api/members/{members[-1]}", {"role": "VIEWER"}),
        ("DELETE", f"/api/members/{members[-1]}", {}),
        ("GET", f"/api/invitations/{invitation}", {}),
        ("DELETE", f"/api/invitations/{invitation}", {}),
    ):
        answer = stranger.http.request(method, path, json=body or None)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    theirs_only = [each["id"] for each in stranger.http.get("/api/members").json()["data"]]
    assert len(theirs_only) == 1
    assert not set(theirs_only) & set(members)
    assert stranger.http.get("/api/invitations").json()["data"] == []
    sessions = owner.http.get("/api/sessions").json()["data"]
    mine = [each for each in sessions if each["current"]]
    assert len(mine) == 1
    revoked = stranger.http.delete(f"/api/sessions/{mine[0]['id']}")
    assert revoked.status_code == 404
    assert stranger.http.get("/api/audit").json()["data"]
    assert mine[0]["id"] not in stranger.http.get("/api/audit").text
    # The page's token of one is of no use to the other.
    stranger.http.headers["x-csrf-token"] = owner.http.headers["x-csrf-token"]
    assert stranger.http.post("/api/metrics", json={"key": "X"}).status_code == 403
    stranger.http.close()


def test_who_signs_out_is_out_everywhere_at_once(stack: Connection, stack_home: Path) -> None:
    browser = Browser(stack.http)
    browser.sign_in(sign_in_link(stack, stack_home, first_organization_id(stack_home)))
    for name in ("metrics", "plans", "webhooks"):
        assert browser.http.get(f"/api/{name}").status_code == 200
    credential = str(browser.http.cookies["usageflow-session"])
    form = {"csrf": browser.http.headers["x-csrf-token"]}
    assert browser.http.post("/sign-out", data=form).status_code == 303
    assert "usageflow-session" not in browser.http.cookies
    signatures = Signatures(internal_token(stack_home))
    token, _mode = signatures.read_session(credential) or ("", "")
    for ended in (credential, signatures.session(token, "live")):
        browser.http.headers["cookie"] = f"usageflow-session={ended}"
        assert browser.http.get("/api/metrics").status_code == 401
    browser.http.close()
