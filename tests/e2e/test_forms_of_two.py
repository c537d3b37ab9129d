"""Two people edit the same thing in the dashboard: who saves last is told what it is now."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import grpc
import httpx
import pytest
from usageflow.accounts.v1 import members_pb2, members_pb2_grpc

from cli.connection import Connection
from tests.e2e.api import REQUEST_TIMEOUT_S, Api, internal_metadata, new_organization

CHANGED = "Somebody has changed this since you opened the page"
LOGO = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


class Forms(HTMLParser):
    """The forms of a page as a browser would send them, by their action."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.of: dict[str, list[tuple[str, str]]] = {}
        self._fields: list[tuple[str, str]] = []
        self._area = self._select = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the fields that have a value."""
        given = {name: value or "" for name, value in attrs}
        name, value = given.get("name", ""), given.get("value", "")
        if tag == "form":
            self._fields = self.of.setdefault(given["action"], [])
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select:
            known = [each for each, _ in self._fields]
            if "selected" in given or self._select not in known:
                self._fields[:] = [each for each in self._fields if each[0] != self._select]
                self._fields.append((self._select, value))
        elif tag == "textarea":
            self._area = name
            self._fields.append((name, ""))
        elif tag == "input" and name and given.get("type") != "file":
            ticked = given.get("type") not in ("checkbox", "radio") or "checked" in given
            if ticked:
                self._fields.append((name, value))

    def handle_data(self, data: str) -> None:
        """Of a textarea its text."""
        if self._area:
            self._fields[-1] = (self._area, data)

    def handle_endtag(self, tag: str) -> None:
        """What begins after a select or textarea is none of it."""
        self._area = "" if tag == "textarea" else self._area
        self._select = "" if tag == "select" else self._select


class Member:
    """A member's browser without script."""

    def __init__(self, url: str, link: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=REQUEST_TIMEOUT_S, trust_env=False)
        self.http.headers["origin"] = url
        assert self.http.post("/sign-in", data={"token": link}).status_code == 303

    def forms(self, path: str) -> dict[str, list[tuple[str, str]]]:
        """The forms of a page."""
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return Forms(answer.text).of

    def send(
        self, form: list[tuple[str, str]], action: str, changes: dict[str, str]
    ) -> httpx.Response:
        """Send a form with some fields filled in otherwise."""
        pairs = [pair for pair in form if pair[0] not in changes] + list(changes.items())
        content = urlencode(pairs)
        assert parse_qsl(content, keep_blank_values=True) == pairs
        headers = {"content-type": "application/x-www-form-urlencoded"}
        return self.http.post(action, content=content, headers=headers)


@dataclass
class World:
    """An organization of its own, two browsers of its owner, and what is edited in it."""

    ada: Member
    bob: Member
    api: Api
    ids: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def world(stack: Connection, stack_home: Path) -> Iterator[World]:
    """All that a form edits."""
    api = Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))
    organization_id = api.get("/api/organization")["id"]

    def link() -> str:
        with grpc.insecure_channel(stack.grpc["accounts"]) as channel:
            stub: Any = members_pb2_grpc.MembersInternalServiceStub(channel)
            request = members_pb2.CreateSignInLinkRequest(organization_id=organization_id)
            metadata = internal_metadata(stack_home)
            answer = stub.CreateSignInLink(request, timeout=REQUEST_TIMEOUT_S, metadata=metadata)
            return str(answer.token)

    made = World(Member(stack.http, link()), Member(stack.http, link()), api)
    made_by: dict[str, tuple[str, dict[str, Any]]] = {
        "metric": ("/api/metrics", {"key": "API_CALL"}),
        "customer": ("/api/customers", {"id": "ada", "name": "Ada"}),
        "rate": ("/api/tax-rates", {"name": "VAT", "percent": "19"}),
        "plan": ("/api/plans", {"name": "Pro", "currency": "USD", "basePrice": "10.00"}),
        "webhook": ("/api/webhooks", {"url": f"{stack.http}/hooks"}),
        "quota": ("/api/quotas", {"metric": "API_CALL", "customerId": "ada", "limit": "10"}),
        "invitation": ("/api/invitations", {"email": "cyd@example.com", "role": "VIEWER"}),
    }
    for name, (path, body) in made_by.items():
        answer = made.ada.http.post(path, json=body, headers=csrf(made.ada))
        assert answer.status_code < 300, (name, answer.text)
        made.ids[name] = answer.json().get("id", "")
    body = {"customerId": "ada", "planId": made.ids["plan"]}
    made.ids["subscription"] = api.post("/api/subscriptions", body)["id"]
    charge = {"customerId": "ada", "description": "Setup", "unitPrice": "5"}
    made.ids["charge"] = api.post("/api/charges", charge)["id"]
    yield made
    made.ada.http.close()
    made.bob.http.close()


def csrf(member: Member) -> dict[str, str]:
    """The header of a program of ours in the page."""
    token = member.http.get("/api/sessions/current").json()["csrfToken"]
    return {"x-csrf-token": token}


@dataclass(frozen=True)
class Edit:
    """A form, its field that both change, and how the API tells what is set."""

    page: str
    action: str
    changed: str
    values: tuple[str, str, str]
    read: str
    told: Callable[[Any], Any]
    more: dict[str, str] = field(default_factory=dict)


CUSTOMER = "/dashboard/customers/ada"
EDITS = {
    "organization": Edit(
        "/dashboard/settings", "/dashboard/settings", "name", ("A", "B", "C"),
        "/api/organization", lambda body: body["name"],
    ),
    "issuer": Edit(
        "/dashboard/settings/invoices", "/dashboard/settings/invoices", "footer", ("A", "B", "C"),
        "/api/issuer", lambda body: body["footer"],
    ),
    "billing settings": Edit(
        "/dashboard/settings/billing", "/dashboard/settings/billing", "graceSeconds",
        ("1", "2", "3"), "/api/billing-settings", lambda body: str(body["graceSeconds"]),
    ),
    "customer": Edit(
        f"{CUSTOMER}/edit", f"{CUSTOMER}/edit", "name", ("A", "B", "C"),
        "/api/customers/ada", lambda body: body["name"],
    ),
    "metric": Edit(
        "/dashboard/metrics/API_CALL/edit", "/dashboard/metrics/API_CALL/edit", "unit",
        ("a", "b", "c"), "/api/metrics/API_CALL", lambda body: body["unit"],
    ),
    "webhook": Edit(
        "/dashboard/webhooks/{webhook}/edit", "/dashboard/webhooks/{webhook}/edit", "description",
        ("A", "B", "C"), "/api/webhooks/{webhook}", lambda body: body["description"],
    ),
    "plan": Edit(
        "/dashboard/plans/{plan}/edit", "/dashboard/plans/{plan}/edit", "basePrice",
        ("11", "12", "13"), "/api/plans/{plan}", lambda body: body["basePrice"].partition(".")[0],
    ),
    "payment method": Edit(
        f"{CUSTOMER}/payment-method", f"{CUSTOMER}/payment-method", "stripeCustomer",
        ("cus_1", "cus_2", "cus_3"), "/api/customers/ada/payment-method",
        lambda body: body["stripeCustomer"], {"stripePaymentMethod": "pm_1"},
    ),
    "quota": Edit(
        CUSTOMER, f"{CUSTOMER}/quotas", "limit", ("11", "12", "13"),
        "/api/quotas/{quota}", lambda body: body["limit"],
        {"metric": "API_CALL", "period": "MONTH", "enforcement": "HARD"},
    ),
    "budget": Edit(
        CUSTOMER, f"{CUSTOMER}/budgets", "amount", ("11", "12", "13"),
        "/api/subscriptions/{subscription}/budget",
        lambda body: body["amount"].partition(".")[0],
        {"percents": "50, 80"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_who_saves_last_is_told_and_nothing_is_overwritten(world: World, edit: Edit) -> None:
    """Where there was nothing before (a payment method, a budget), too."""
    page, action, read = (text.format(**world.ids) for text in (edit.page, edit.action, edit.read))
    first, second, third = edit.values
    theirs, mine = world.ada.forms(page)[action], world.bob.forms(page)[action]

    def now() -> str:
        return str(edit.told(world.api.get(read)))

    saved = world.ada.send(theirs, action, {edit.changed: first} | edit.more)
    assert saved.status_code == 303, saved.text
    late = world.bob.send(mine, action, {edit.changed: second} | edit.more)
    assert late.status_code == 412, late.text
    assert CHANGED in late.text
    assert now() == first
    # What the page shows now may be changed.
    again = Forms(late.text).of[action]
    done = world.bob.send(again, action, {edit.changed: third} | edit.more)
    assert done.status_code == 303, done.text
    assert now() == third
    if edit.page == edit.action:
        assert "You had entered" in late.text
        assert dict(again)[edit.changed].partition(".")[0] == first


def test_a_key_of_stripe_that_came_too_late_is_not_shown(world: World) -> None:
    path = "/dashboard/settings/billing"
    theirs, mine = world.ada.forms(path)[path], world.bob.forms(path)[path]
    assert world.ada.send(theirs, path, {"graceSeconds": "60"}).status_code == 303
    late = world.bob.send(mine, path, {"stripeApiKey": "sk_test_secret_of_bob"})
    assert late.status_code == 412
    assert "secret_of_bob" not in late.text


def test_rates_of_taxes_are_not_overwritten(world: World) -> None:
    for page, action in (
        ("/dashboard/taxes", "/dashboard/taxes/default"),
        (f"{CUSTOMER}/taxes", f"{CUSTOMER}/taxes"),
    ):
        read = "/api/tax-rates/default" if "default" in action else "/api/customers/ada/tax-rates"
        theirs, mine = world.ada.forms(page)[action], world.bob.forms(page)[action]
        own = {"_own": "true", "_rates": world.ids["rate"]}
        assert world.ada.send(theirs, action, own).status_code == 303
        late = world.bob.send(mine, action, {"_own": "true"})
        assert late.status_code == 412
        assert CHANGED in late.text
        assert len(world.api.get(read)["taxRates"]) == 1


@pytest.mark.parametrize(
    ("page", "action", "change", "read"),
    [
        (
            "/dashboard/webhooks/{webhook}",
            "/dashboard/webhooks/{webhook}/delete",
            ("PATCH", {"description": "kept"}),
            "/api/webhooks/{webhook}",
        ),
        (
            CUSTOMER,
            f"{CUSTOMER}/quotas/{{quota}}/delete",
            ("POST", {"metric": "API_CALL", "customerId": "ada", "limit": "99"}),
            "/api/quotas/{quota}",
        ),
        (
            CUSTOMER,
            f"{CUSTOMER}/budgets/{{subscription}}/remove",
            ("PUT", {"amount": "99.00"}),
            "/api/subscriptions/{subscription}/budget",
        ),
        (
            f"{CUSTOMER}/payment-method",
            f"{CUSTOMER}/payment-method/remove",
            ("PUT", {"stripeCustomer": "cus_9", "stripePaymentMethod": "pm_9"}),
            "/api/customers/ada/payment-method",
        ),
    ],
    ids=["webhook", "quota", "budget", "payment method"],
)
def test_what_has_changed_is_not_taken_away_unseen(
    world: World, page: str, action: str, change: tuple[str, dict[str, str]], read: str
) -> None:
    page, action, read = (text.format(**world.ids) for text in (page, action, read))
    (method, body), form = change, world.bob.forms(page)[action]
    path = "/api/quotas" if method == "POST" else read
    answer = world.api.http.request(method, path, json=body)
    assert answer.status_code < 300, answer.text
    late = world.bob.send(form, action, {})
    assert (late.status_code, CHANGED in late.text) == (412, True)
    assert world.api.http.get(read).status_code == 200
    assert world.bob.send(Forms(late.text).of[action], action, {}).status_code == 303
    assert world.api.http.get(read).status_code == 404


def test_members_who_have_changed_keep_their_role_and_place(world: World) -> None:
    """A role that an owner has set is not overwritten by one who saw another."""
    invited = world.ada.http.post(
        "/api/invitations",
        json={"email": "dee@example.com", "role": "VIEWER"},
        headers=csrf(world.ada),
    ).json()
    token = invited["url"].partition("token=")[2]
    password = "correct horse battery"
    joining = httpx.Client(base_url=world.ada.http.base_url, trust_env=False)
    form = {"token": token, "name": "Dee", "password": password}
    assert joining.post("/invitation", data=form).status_code == 303
    joining.close()
    members = world.api.get("/api/members")["data"]
    dee = next(each for each in members if each["name"] == "Dee")
    page, path = "/dashboard/team", f"/dashboard/team/members/{dee['id']}"
    theirs, mine = world.ada.forms(page), world.bob.forms(page)
    assert world.ada.send(theirs[f"{path}/role"], f"{path}/role", {"role": "ADMIN"}).is_redirect
    for action in (f"{path}/role", f"{path}/remove"):
        changes = {"role": "DEVELOPER"} if action.endswith("role") else {}
        late = world.bob.send(mine[action], action, changes)
        assert (late.status_code, CHANGED in late.text) == (412, True)
    assert world.api.get(f"/api/members/{dee['id']}")["role"] == "ADMIN"
    for name in (f"/dashboard/team/invitations/{world.ids['invitation']}/revoke",):
        assert dict(mine[name])["_etag"]
    charge = f"/dashboard/charges/{world.ids['charge']}/delete"
    assert dict(world.bob.forms("/dashboard/charges")[charge])["_etag"]


def test_a_new_customer_does_not_take_the_place_of_one_that_there_is(world: World) -> None:
    path = "/dashboard/customers/new"
    form = world.ada.forms(path)[path]
    refused = world.ada.send(form, path, {"id": "ada", "name": "Another Ada"})
    assert (refused.status_code, "Is a customer already" in refused.text) == (400, True)
    assert world.api.get("/api/customers/ada")["name"] != "Another Ada"
    made = world.ada.send(form, path, {"id": "eve", "name": "Eve"})
    assert made.status_code == 303


def test_a_logo_is_uploaded_shown_and_removed(world: World) -> None:
    page, action = "/dashboard/settings/invoices", "/dashboard/settings/invoices/logo"

    def upload(content: bytes, form: list[tuple[str, str]]) -> httpx.Response:
        files = {"logo": ("logo.png", content, "image/png")}
        return world.bob.http.post(action, data=dict(form), files=files)

    mine, stale = world.bob.forms(page)[action], world.bob.forms(page)[action]
    assert upload(LOGO, mine).status_code == 303
    assert base64.b64decode(world.api.get("/api/issuer")["logo"]) == LOGO
    shown = world.bob.http.get(page).text
    assert f"data:image/png;base64,{base64.b64encode(LOGO).decode()}" in shown
    late = upload(LOGO, stale)
    assert (late.status_code, CHANGED in late.text) == (412, True)
    # The API's own checks: what is no image, too large, or nothing.
    mine = Forms(shown).of[action]
    for wrong, said in (
        (b"<svg onload=alert(1)>", "Must be a PNG or JPEG"),
        (LOGO + bytes(128 * 1024), "Must be a PNG or JPEG of at most 128 KiB"),
        (b"", "Choose a file first"),
    ):
        answer = upload(wrong, mine)
        assert (answer.status_code, said in answer.text) == (400, True), answer.text
    assert upload(LOGO + bytes(300 * 1024), mine).status_code == 413
    # The texts beside it are changed without it.
    assert world.bob.send(Forms(shown).of[page], page, {"name": "Acme"}).status_code == 303
    told = world.api.get("/api/issuer")
    assert (told["name"], base64.b64decode(told["logo"])) == ("Acme", LOGO)
    removal = f"{action}/remove"
    form = world.bob.forms(page)[removal]
    assert world.bob.send(form, removal, {}).status_code == 303
    told = world.api.get("/api/issuer")
    assert (told["name"], told["logo"]) == ("Acme", "")
