"""Members of a running stack: a link signs in, roles hold in every service, strangers stay out."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from usageflow.accounts.v1 import members_pb2, members_pb2_grpc
from usageflow.ingest.v1 import ingest_pb2, ingest_pb2_grpc

from cli.connection import Connection
from services.kit.keys import split_session
from tests.e2e.api import (
    REQUEST_TIMEOUT_S,
    Api,
    first_organization_id,
    internal_metadata,
    new_organization,
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
    token, _mode = split_session(credential) or ("", "")
    for mode in ("test", "live"):
        browser.http.headers["cookie"] = f"usageflow-session={token}.{mode}"
        assert browser.http.get("/api/metrics").status_code == 401
    browser.http.close()
