"""A POST with an Idempotency-Key is done once, by whatever service does it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.connection import Connection
from tests.e2e.api import Api, new_key, new_organization

CLIENTS = 8
PLAN = {"name": "P", "currency": "USD", "metrics": []}
HOOK = {"url": "http://127.0.0.1:9/", "events": ["invoice.created"]}
# Path, body, and how another body differs; "{plan}" is an id that the test makes.
REQUESTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "a key, whose secret is shown once": (
        "/api/keys",
        {"name": "k", "scopes": ["read"]},
        {"name": "other"},
    ),
    "a webhook, whose secret is shown once": ("/api/webhooks", HOOK, {"description": "other"}),
    "a new secret": ("/api/webhooks/{webhook}/rotate-secret", {}, {"signature": "ED25519"}),
    "a test of a webhook": ("/api/webhooks/{webhook}/test", {}, {}),
    "a plan": ("/api/plans", PLAN, {"name": "Q"}),
    "a version of a plan": ("/api/plans/{plan}/versions", PLAN, {"name": "Q"}),
    "a customer": ("/api/customers", {"id": "new", "name": "N"}, {"name": "M"}),
    "a tax rate": ("/api/tax-rates", {"name": "VAT", "percent": "19"}, {"percent": "7"}),
    "a discount": (
        "/api/subscriptions/{subscription}/discounts",
        {"percent": "10"},
        {"percent": "20"},
    ),
    "a subscription": (
        "/api/subscriptions",
        {"customerId": "ada", "planId": "{plan}"},
        {"customerId": "bob"},
    ),
    "a charge": (
        "/api/charges",
        {
            "customerId": "ada",
            "subscriptionId": "{subscription}",
            "description": "D",
            "unitPrice": "1.00",
        },
        {"unitPrice": "2.00"},
    ),
    "credit": (
        "/api/customers/ada/credits/grants",
        {"amount": "50", "currency": "USD"},
        {"amount": "60"},
    ),
    "a debit": (
        "/api/customers/bob/credits/debits",
        {"amount": "1", "currency": "USD", "reason": "R"},
        {"amount": "2"},
    ),
    "a void of credit": ("/api/customers/bob/credits/grants/{grant}/void", {}, {"reason": "R"}),
    "a metric": ("/api/metrics", {"key": "NEW"}, {"key": "OTHER"}),
    "a quota": ("/api/quotas", {"metric": "API_CALL", "limit": "10"}, {"limit": "20"}),
    "a void": ("/api/events/{event}/void", {"reason": "twice"}, {"reason": "other"}),
}


@pytest.fixture(scope="module")
def api(stack: Connection, stack_home: Path) -> Api:
    """An organization of its own."""
    return Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))


@pytest.fixture(scope="module")
def ids(api: Api) -> dict[str, str]:
    """What requests refer to."""
    api.post("/api/metrics", {"key": "API_CALL"})
    plan = api.post("/api/plans", PLAN)["id"]
    for customer_id in ("ada", "bob"):
        api.post("/api/customers", {"id": customer_id})
    credit = {"amount": "5", "currency": "USD"}
    grants = [api.post("/api/customers/bob/credits/grants", credit)["id"] for _ in range(2)]
    subscription = {"customerId": "ada", "planId": plan}
    return {
        "plan": plan,
        "grant": grants[1],
        "subscription": api.post("/api/subscriptions", subscription)["id"],
        "webhook": api.post("/api/webhooks", HOOK)["id"],
        "event": api.track(new_key()).json()["eventId"],
    }


def post(api: Api, path: str, body: dict[str, Any], ids: dict[str, str], key: str) -> Any:
    """A POST with a key."""
    filled = {
        name: value.format(**ids) if isinstance(value, str) else value
        for name, value in body.items()
    }
    headers = {"Idempotency-Key": key}
    return api.http.post(path.format(**ids), json=filled, headers=headers)


def shown(answer: httpx.Response) -> tuple[int, Any]:
    """What has to be alike."""
    return answer.status_code, answer.json()


@pytest.mark.parametrize("name", REQUESTS)
def test_the_same_request_again_is_answered_alike_and_another_is_409(
    api: Api, ids: dict[str, str], name: str
) -> None:
    path, body, other = REQUESTS[name]
    key = new_key()
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda _n: post(api, path, body, ids, key), range(CLIENTS)))
    assert answers[0].is_success, answers[0].text
    assert [shown(each) for each in answers] == [shown(answers[0])] * CLIENTS
    replayed = [each.headers.get("idempotent-replayed") for each in answers]
    assert sorted(replayed, key=str) == [None] + ["true"] * (CLIENTS - 1)
    if other:
        refused = post(api, path, body | other, ids, key)
        assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_conflict")
    assert shown(post(api, path, body, ids, key)) == shown(answers[0])


def test_one_object_is_made(api: Api) -> None:
    key = new_key()
    before = len(api.get("/api/tax-rates", limit="100")["data"])
    for _ in range(3):
        post(api, "/api/tax-rates", {"name": "Once", "percent": "1"}, {}, key)
    assert len(api.get("/api/tax-rates", limit="100")["data"]) == before + 1


def test_a_refused_request_uses_no_key_up(api: Api) -> None:
    key = new_key()
    assert post(api, "/api/metrics", {"key": "a b"}, {}, key).status_code == 400
    assert post(api, "/api/metrics", {"key": "NO_SPACE"}, {}, key).status_code == 201


def test_a_key_that_is_revoked_under_a_key_ends_at_once(api: Api, stack: Connection) -> None:
    """Others are told after the commit."""
    made = api.post("/api/keys", {"name": "k", "scopes": ["read"]})
    other = Api(stack.http, made["secret"])
    assert other.http.get("/api/customers").status_code == 200
    assert post(api, f"/api/keys/{made['id']}/revoke", {}, {}, new_key()).status_code == 200
    assert other.http.get("/api/customers").status_code == 401


def test_two_organizations_may_use_the_same_key(
    api: Api, stack: Connection, stack_home: Path
) -> None:
    stranger = Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))
    key = new_key()
    mine, theirs = (post(each, "/api/plans", PLAN, {}, key) for each in (api, stranger))
    assert mine.json()["id"] != theirs.json()["id"]
    assert "idempotent-replayed" not in theirs.headers
