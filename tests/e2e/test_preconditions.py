"""Whoever changes what he has read changes nothing when somebody else was there before."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.connection import Connection
from tests.e2e.api import Api, new_organization

CLIENTS = 8


@dataclass
class Editable:
    """How one kind of resource is read, and changed with the number n in it."""

    read: str
    method: str
    change: str
    key: str

    def body(self, number: int) -> dict[str, Any]:
        """A change."""
        values: dict[str, Any] = {
            "name": f"Name {number}",
            "description": f"Description {number}",
            "limit": str(100 + number),
            "stripeCustomer": f"cus_{number}",
            "amount": f"{100 + number}.00",
        }
        body = {self.key: values[self.key]}
        if self.key == "limit":
            body |= {"metric": "API_CALL", "customerId": "ada"}
        elif self.key == "stripeCustomer":
            body |= {"stripePaymentMethod": "pm_1"}
        elif self.change == "/api/customers":
            body |= {"id": "ada"}
        return body


@pytest.fixture(scope="module")
def api(stack: Connection, stack_home: Path) -> Api:
    """An organization of its own."""
    api = Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))
    api.post("/api/metrics", {"key": "API_CALL"})
    api.post("/api/customers", {"id": "ada"})
    return api


@pytest.fixture(
    params=[
        "organization",
        "customer",
        "customer in full",
        "webhook",
        "quota",
        "issuer",
        "key",
        "payment method",
        "budget",
    ],
    scope="module",
)
def editable(request: pytest.FixtureRequest, api: Api) -> Editable:
    """Each kind."""
    match request.param:
        case "organization":
            return Editable("/api/organization", "PATCH", "/api/organization", "name")
        case "customer":
            return Editable("/api/customers/ada", "PATCH", "/api/customers/ada", "name")
        case "customer in full":
            return Editable("/api/customers/ada", "POST", "/api/customers", "name")
        case "issuer":
            return Editable("/api/issuer", "PUT", "/api/issuer", "name")
        case "key":
            path = f"/api/keys/{api.post('/api/keys', {'scopes': ['track']})['id']}"
            return Editable(path, "PATCH", path, "name")
        case "payment method":
            path = "/api/customers/ada/payment-method"
            editable = Editable(path, "PUT", path, "stripeCustomer")
            api.http.put(path, json=editable.body(0))
            return editable
        case "budget":
            plan = api.post("/api/plans", {"name": "P", "currency": "USD"})["id"]
            subscription = {"customerId": "with_a_budget", "planId": plan}
            path = f"/api/subscriptions/{api.post('/api/subscriptions', subscription)['id']}/budget"
            api.ok(api.http.put(path, json={"amount": "1"}))
            return Editable(path, "PUT", path, "amount")
        case "webhook":
            body = {"url": "http://127.0.0.1:9/", "events": ["invoice.created"]}
            path = f"/api/webhooks/{api.post('/api/webhooks', body)['id']}"
            return Editable(path, "PATCH", path, "description")
        case _:
            quota = {"metric": "API_CALL", "customerId": "ada", "limit": "1"}
            path = f"/api/quotas/{api.post('/api/quotas', quota)['id']}"
            return Editable(path, "POST", "/api/quotas", "limit")


@pytest.fixture
def rates(api: Api) -> Iterator[list[str]]:
    """Tax rates, and nobody has any."""
    yield [
        api.post("/api/tax-rates", {"name": f"R{percent}", "percent": str(percent)})["id"]
        for percent in range(2)
    ]
    api.http.put("/api/tax-rates/default", json={"taxRateIds": []})


def change(api: Api, what: Editable, number: int, tag: str | None) -> httpx.Response:
    """Try to change it."""
    headers = {} if tag is None else {"If-Match": tag}
    return api.http.request(what.method, what.change, json=what.body(number), headers=headers)


def test_a_change_of_what_was_read_succeeds_and_tells_the_next_tag(
    api: Api, editable: Editable
) -> None:
    read = api.http.get(editable.read)
    first = change(api, editable, 1, read.headers["etag"])
    second = change(api, editable, 2, first.headers["etag"])
    assert (first.status_code, second.status_code) == (200, 200), first.text + second.text
    assert api.http.get(editable.read).headers["etag"] == second.headers["etag"]
    assert len({each.headers["etag"] for each in (read, first, second)}) == 3


def test_a_change_of_what_has_changed_is_412_and_changes_nothing(
    api: Api, editable: Editable
) -> None:
    old = change(api, editable, 3, None).headers["etag"]
    now = change(api, editable, 4, None)
    for tag in (old, f"W/{now.headers['etag']}", '"other"'):
        refused = change(api, editable, 5, tag)
        assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
    assert api.http.get(editable.read).json() == now.json()
    for tag in (f'"other", {now.headers["etag"]}', "*"):
        assert change(api, editable, 6, tag).status_code == 200


def test_of_many_who_have_read_the_same_one_changes_it(api: Api, editable: Editable) -> None:
    tag = change(api, editable, 7, None).headers["etag"]
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda n: change(api, editable, 10 + n, tag), range(CLIENTS)))
    assert sorted(each.status_code for each in answers) == [200] + [412] * (CLIENTS - 1)
    (won,) = (each for each in answers if each.status_code == 200)
    assert api.http.get(editable.read).json() == won.json()


def test_what_is_known_already_is_304(api: Api, editable: Editable) -> None:
    tag = change(api, editable, 8, None).headers["etag"]
    known = api.http.get(editable.read, headers={"If-None-Match": f'"other", W/{tag}'})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)
    assert api.http.get(editable.read, headers={"If-None-Match": '"other"'}).status_code == 200


def made_and_changed(api: Api, kind: str) -> tuple[str, str]:
    """The path of something that may be deleted, and the tag that it had before it changed."""
    body: dict[str, Any]
    match kind:
        case "webhook":
            body = {"url": "http://127.0.0.1:9/", "events": ["invoice.created"]}
            path = f"/api/webhooks/{api.post('/api/webhooks', body)['id']}"
            change = ("PATCH", path, {"description": "changed"})
        case "key":
            path = f"/api/keys/{api.post('/api/keys', {'scopes': ['track']})['id']}"
            change = ("PATCH", path, {"name": "changed"})
        case "payment method":
            path = "/api/customers/grace/payment-method"
            api.post("/api/customers", {"id": "grace"})
            body = {"stripeCustomer": "cus_1", "stripePaymentMethod": "pm_1"}
            api.ok(api.http.put(path, json=body))
            change = ("PUT", path, body | {"stripePaymentMethod": "pm_2"})
        case _:
            body = {"metric": "API_CALL", "customerId": "grace", "limit": "1"}
            path = f"/api/quotas/{api.post('/api/quotas', body)['id']}"
            change = ("POST", "/api/quotas", body | {"limit": "2"})
    seen = api.http.get(path).headers["etag"]
    method, changed, body = change
    api.ok(api.http.request(method, changed, json=body))
    return path, seen


@pytest.mark.parametrize("kind", ["webhook", "quota", "key", "payment method"])
def test_what_has_changed_since_is_not_deleted(api: Api, kind: str) -> None:
    path, seen = made_and_changed(api, kind)
    refused = api.http.delete(path, headers={"If-Match": seen})
    assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
    now = api.http.get(path)
    assert now.status_code == 200
    deleted = api.http.delete(path, headers={"If-Match": now.headers["etag"]})
    assert deleted.status_code == 204


def test_a_charge_that_is_another_by_now_is_not_taken_back(api: Api) -> None:
    """Once it is on an invoice it is another, and never comes back from there."""
    body = {"customerId": "ada", "description": "D", "unitPrice": "1.00"}
    at_once = api.post("/api/charges", body | {"timing": "NOW", "currency": "USD"})["id"]
    plan = {"name": "P", "currency": "USD", "basePrice": "1.00", "metrics": []}
    subscription = {"customerId": "ada", "planId": api.post("/api/plans", plan)["id"]}
    api.post("/api/subscriptions", subscription)
    waiting = api.post("/api/charges", body)["id"]
    for charge, then, code in ((at_once, 409, "charge_invoiced"), (waiting, 204, "")):
        path = f"/api/charges/{charge}"
        refused = api.http.delete(path, headers={"If-Match": '"old"'})
        assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
        tag = api.http.get(path).headers["etag"]
        answer = api.http.delete(path, headers={"If-Match": tag})
        assert answer.status_code == then
        assert not code or answer.json()["code"] == code


def test_that_a_key_was_used_does_not_change_its_tag(api: Api) -> None:
    """Whoever edits the key of a busy program could never save the change otherwise."""
    made = api.post("/api/keys", {"scopes": ["read"]})
    path = f"/api/keys/{made['id']}"
    tag = api.http.get(path).headers["etag"]
    used = api.http.get("/api/metrics", headers={"x-usageflow-api-key": made["secret"]})
    assert used.status_code == 200
    key = api.http.get(path)
    assert key.json()["usedAt"] is not None
    assert key.headers["etag"] == tag


def test_what_is_not_there_is_not_made(api: Api) -> None:
    body = {"id": "nobody", "name": "N"}
    refused = api.http.post("/api/customers", json=body, headers={"If-Match": "*"})
    assert refused.status_code == 412
    assert api.http.get("/api/customers/nobody").status_code == 404


def test_tax_rates_are_assigned_by_one_of_many(api: Api, rates: list[str]) -> None:
    """Also when there was no row to lock before."""
    for path in ("/api/tax-rates/default", "/api/customers/ada/tax-rates"):
        tag = api.http.get(path).headers["etag"]

        def assign(_n: int, path: str = path, tag: str = tag) -> int:
            body = {"taxRateIds": rates}
            return api.http.put(path, json=body, headers={"If-Match": tag}).status_code

        with ThreadPoolExecutor(CLIENTS) as pool:
            assert sorted(pool.map(assign, range(CLIENTS))) == [200] + [412] * (CLIENTS - 1)
