"""Members in a browser: signing in and out, their cookie, and that requests are really theirs."""

import re
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from usageflow.accounts.v1 import accounts_pb2, members_pb2
from usageflow.aggregator.v1 import aggregator_pb2

from cli.embedded import EmbeddedNats
from gateway.sessions import COOKIE, SECURE_COOKIE, csrf_token
from services.kit import clock
from services.kit.errors import (
    FieldProblem,
    InvalidArgumentError,
    OverloadedError,
    UnauthenticatedError,
    UnavailableError,
)
from services.kit.keys import SESSION_START, SIGN_IN_LINK_START, make_token
from services.kit.signatures import Signatures
from tests.integration.gateway.conftest import SIGNATURES, Gateway, World, as_member, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")
METRIC = {"key": "API_CALL"}


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Gateway:
    """One gateway for all tests here."""
    return shared_gateway.forgetful()


@pytest.fixture
def browser(gateway: Gateway) -> httpx.AsyncClient:
    """A browser in which nobody has signed in."""
    return gateway.client


def cookie_of(answer: httpx.Response) -> dict[str, str]:
    """The attributes of the session's cookie; "value" is what it holds."""
    first, *others = answer.headers["set-cookie"].split("; ")
    name, _, value = first.partition("=")
    pairs = (each.partition("=") for each in others)
    return {"name": name, "value": value} | {key.lower(): text for key, _, text in pairs}


async def sign_in(browser: httpx.AsyncClient, **form: str) -> httpx.Response:
    return await browser.post("/sign-in", data={"token": make_token(SIGN_IN_LINK_START), **form})


async def test_opening_a_sign_in_link_shows_a_button_and_uses_nothing_up(
    browser: httpx.AsyncClient, world: World
) -> None:
    answer = await browser.get("/sign-in?token=ufl_x%22%3E%3Cscript%3E")
    assert answer.status_code == 200
    assert world.requests == []
    assert 'value="ufl_x&quot;&gt;&lt;script&gt;"' in answer.text
    assert "<script>" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    assert "set-cookie" not in answer.headers


async def test_the_button_signs_in(browser: httpx.AsyncClient, world: World) -> None:
    answer = await sign_in(browser, next="/invoices?limit=5")
    assert (answer.status_code, answer.headers["location"]) == (303, "/invoices?limit=5")
    cookie = cookie_of(answer)
    assert cookie["name"] == COOKIE
    assert (cookie["path"], cookie["samesite"]) == ("/", "Lax")
    assert "httponly" in cookie
    assert "secure" not in cookie
    assert 29 * 86_400 < int(cookie["max-age"]) <= 30 * 86_400
    assert SIGNATURES.read_session(cookie["value"])
    [(_, request)] = world.requests
    assert isinstance(request, members_pb2.SignInRequest)
    assert (request.address, request.user_agent[:12]) == ("127.0.0.1", "python-httpx")


async def test_a_password_signs_in(browser: httpx.AsyncClient, world: World) -> None:
    form = {"email": "ada@example.com", "password": "correct horse battery"}
    answer = await browser.post("/sign-in", data=form)
    assert answer.status_code == 303
    [(_, request)] = world.requests
    assert isinstance(request, members_pb2.SignInRequest)
    assert (request.email, request.password) == (form["email"], form["password"])


@pytest.mark.parametrize(
    "following",
    ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "", "/a\r\nx: y"],
)
async def test_nobody_is_sent_elsewhere_after_signing_in(
    browser: httpx.AsyncClient, following: str
) -> None:
    answer = await sign_in(browser, next=following)
    assert answer.headers["location"] == "/dashboard"


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (UnauthenticatedError("Wrong <b>", reason="wrong_password"), 401),
        (OverloadedError("Too many", retry_after_s=8.0), 429),
        (UnavailableError("away"), 503),
    ],
    ids=["wrong", "too often", "away"],
)
async def test_who_does_not_get_in_is_told_why_on_a_page(
    browser: httpx.AsyncClient, world: World, failure: Exception, status: int
) -> None:
    world.sign_in_failure = failure
    answer = await sign_in(browser)
    assert (answer.status_code, answer.headers["content-type"]) == (
        status,
        "text/html; charset=utf-8",
    )
    assert 'role="alert"' in answer.text
    assert "<b>" not in answer.text
    assert "set-cookie" not in answer.headers
    if status == 429:
        assert answer.headers["retry-after"] == "8"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
    ids=str,
)
async def test_another_site_signs_nobody_in_or_out_and_changes_nothing(
    browser: httpx.AsyncClient, world: World, headers: dict[str, str]
) -> None:
    form = {"token": make_token(SIGN_IN_LINK_START)}
    assert (await browser.post("/sign-in", data=form, headers=headers)).status_code == 403
    credential = as_member(browser, world)
    csrf = {"csrf": csrf_token(credential)}
    assert (await browser.post("/sign-out", data=csrf, headers=headers)).status_code == 403
    answer = await browser.post("/api/metrics", json=METRIC, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
    assert world.requests == []


async def test_our_own_pages_may(
    gateway: Gateway, browser: httpx.AsyncClient, world: World
) -> None:
    world.answers["ListMetrics"] = aggregator_pb2.ListMetricsResponse()
    world.answers["CreateMetric"] = aggregator_pb2.CreateMetricResponse()
    as_member(browser, world)
    assert (await browser.get("/api/metrics")).status_code == 200
    own = {"origin": "http://billing.example", "sec-fetch-site": "same-origin"}
    assert (await browser.post("/api/metrics", json=METRIC, headers=own)).status_code == 201
    assert {caller.member_id[:4] for caller in world.callers} == {"mem_"}


async def test_what_changes_something_takes_the_token_of_the_page(
    browser: httpx.AsyncClient, world: World
) -> None:
    credential = as_member(browser, world)
    other = csrf_token(world.new_session())
    token, _mode = SIGNATURES.read_session(credential) or ("", "")
    for wrong in ("", "x", other, csrf_token(SIGNATURES.session(token, "live"))):
        browser.headers["x-csrf-token"] = wrong
        answer = await browser.post("/api/metrics", json=METRIC)
        assert (answer.status_code, answer.json()["code"]) == (403, "invalid_csrf_token")
        assert (await browser.post("/sign-out", data={"csrf": wrong})).status_code == 403
    assert world.requests == []


async def test_a_session_that_has_ended_is_401_and_says_so(
    browser: httpx.AsyncClient, world: World
) -> None:
    credential = as_member(browser, world)
    world.principals.clear()
    answer = await browser.get("/api/metrics")
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_session")
    browser.headers["cookie"] = f"{COOKIE}={credential}x"
    answer = await browser.get("/api/metrics")
    assert (answer.status_code, answer.json()["code"]) == (401, "missing_api_key")


async def test_a_made_up_cookie_is_nobodys_and_costs_no_look_up(
    browser: httpx.AsyncClient, world: World
) -> None:
    credential = world.new_session()
    token, _mode, signature = credential.split(".")
    rotated = Signatures(SecretStr("another internal token, as long as that"))
    made_up = [
        f"{token}.live.{signature}",
        f"{token}.test",
        credential[:-1],
        SIGNATURES.session(make_token(SESSION_START), "test")[:-4] + "AAAA",
        rotated.session(token, "test"),
        SIGNATURES.portal_link(token, clock.now() + timedelta(days=1)),
        world.new_portal_link("user_123"),
    ]
    for value in made_up:
        browser.headers["cookie"] = f"{COOKIE}={value}"
        answer = await browser.get("/api/metrics")
        assert (answer.status_code, answer.json()["code"]) == (401, "missing_api_key"), value
        assert (await browser.get("/dashboard")).headers["location"].startswith("/sign-in"), value
    assert (world.resolved, world.requests) == (0, [])


async def test_a_session_is_no_api_key(browser: httpx.AsyncClient, world: World) -> None:
    credential = world.new_session()
    event = {"metric": "API_CALL", "amount": 1}
    for headers in (
        {"x-usageflow-api-key": credential},
        {"authorization": f"Bearer {credential}"},
    ):
        for path in ("/api/track", "/api/metrics"):
            answer = await browser.post(path, json=event, headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (401, "Invalid API key")
    cookie = {"cookie": f"{COOKIE}={credential}"}
    answer = await browser.post("/api/track", json=event, headers=cookie)
    assert (answer.status_code, answer.json()["error"]) == (401, "Missing API key")
    assert world.events == []


async def test_who_asks_is_told_who_they_are(browser: httpx.AsyncClient, world: World) -> None:
    credential = as_member(browser, world, "ADMIN")
    member = members_pb2.Member(
        id="mem_1", email="ada@example.com", name="Ada", role=accounts_pb2.ROLE_ADMIN
    )
    organization = accounts_pb2.Organization(id="org_1", name="Acme")
    world.answers["GetCurrentMember"] = members_pb2.GetCurrentMemberResponse(
        member=member, organization=organization
    )
    shown: dict[str, Any] = (await browser.get("/api/sessions/current")).json()
    assert shown["member"]["role"] == "ADMIN"
    assert shown["organization"]["name"] == "Acme"
    assert (shown["mode"], shown["csrfToken"]) == ("test", csrf_token(credential))


async def test_the_page_of_who_has_signed_in_shows_their_name_as_text(
    browser: httpx.AsyncClient, world: World
) -> None:
    as_member(browser, world)
    text = (await browser.get("/sign-in")).text
    assert "Ada &lt;b&gt;" in text
    assert re.search('name="csrf" value="([^"]+)"', text)


async def test_signing_out_ends_the_session_and_takes_the_cookie_away(
    browser: httpx.AsyncClient, world: World
) -> None:
    credential = as_member(browser, world)
    answer = await browser.post("/sign-out", data={"csrf": csrf_token(credential)})
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    cookie = cookie_of(answer)
    assert (cookie["value"], cookie["max-age"]) == ("", "0")
    assert credential not in world.principals


async def test_the_mode_is_switched_by_the_cookie(browser: httpx.AsyncClient, world: World) -> None:
    credential = as_member(browser, world)
    form = {"csrf": csrf_token(credential), "mode": "live", "next": "/usage"}
    answer = await browser.post("/mode", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/usage")
    live = cookie_of(answer)["value"]
    token, _mode = SIGNATURES.read_session(credential) or ("", "")
    assert SIGNATURES.read_session(live) == (token, "live")
    world.answers["ListMetrics"] = aggregator_pb2.ListMetricsResponse()
    browser.headers["cookie"] = f"{COOKIE}={live}"
    assert (await browser.get("/api/metrics")).status_code == 200
    assert world.callers[-1].mode_name == "live"
    form = {"csrf": csrf_token(live), "mode": "demo"}
    assert (await browser.post("/mode", data=form)).status_code == 400


async def test_an_invitation_s_page_says_what_is_offered_and_its_button_accepts(
    browser: httpx.AsyncClient, world: World
) -> None:
    world.invited["ufi_1"] = "ada@example.com"
    shown = await browser.get("/invitation?token=ufi_1")
    assert shown.status_code == 200
    assert "Acme &lt;i&gt;" in shown.text
    assert "ada@example.com" in shown.text
    assert world.requests == []
    form = {"token": "ufi_1", "name": "Ada", "password": ""}
    answer = await browser.post("/invitation", data=form)
    assert (answer.status_code, cookie_of(answer)["name"]) == (303, COOKIE)
    [(_, request)] = world.requests
    assert isinstance(request, members_pb2.AcceptInvitationRequest)
    assert (request.name, request.password, request.address) == ("Ada", "", "127.0.0.1")


async def test_what_is_wrong_with_accepting_is_told_beside_the_form(
    browser: httpx.AsyncClient, world: World
) -> None:
    world.invited["ufi_1"] = "ada@example.com"
    world.sign_in_failure = InvalidArgumentError([FieldProblem("password", "must be longer")])
    form = {"token": "ufi_1", "name": '"><script>', "password": "x"}
    answer = await browser.post("/invitation", data=form)
    assert answer.status_code == 400
    assert "must be longer" in answer.text
    assert "<script>" not in answer.text
    assert "<form" in answer.text
    elsewhere = {"origin": "https://evil.example"}
    assert (await browser.post("/invitation", data=form, headers=elsewhere)).status_code == 403


async def test_an_invitation_that_does_not_work_has_a_page_without_a_form(
    browser: httpx.AsyncClient,
) -> None:
    answer = await browser.get("/invitation?token=ufi_used")
    assert (answer.status_code, answer.headers["content-type"]) == (
        401,
        "text/html; charset=utf-8",
    )
    assert "<form" not in answer.text


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", "/mode", "/invitation"])
async def test_forms_are_forms(browser: httpx.AsyncClient, path: str) -> None:
    answer = await browser.post(path, json={"csrf": "x"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


async def test_behind_https_every_answer_tells_browsers_to_stay_there(
    nats_server: EmbeddedNats, browser: httpx.AsyncClient
) -> None:
    """Errors and the hot path, too, whose answers are made in places of their own."""
    name = "strict-transport-security"
    assert name not in (await browser.get("/sign-in")).headers
    event = {"metric": "API_CALL", "amount": 1}
    async with serving(nats_server.url, public_url="https://billing.example") as secure:
        http = secure.client
        key = {"x-usageflow-api-key": secure.world.new_key()}
        for answer in (
            await http.get("/"),
            await http.get("/sign-in"),
            await http.get("/nothing"),
            await http.get("/api/metrics"),
            await http.post("/api/track", json=event, headers=key),
            await http.post("/api/track", json=event, headers=key),  # the key is known: no ASGI
            await http.post("/api/track", json={}, headers=key),
        ):
            assert answer.headers.get_list(name) == ["max-age=31536000"]


async def test_behind_https_the_cookie_is_for_https_and_this_host_alone(
    nats_server: EmbeddedNats,
) -> None:
    changes = {"public_url": "https://billing.example", "trusted_proxies": "127.0.0.0/8,10.0.0.0/8"}
    async with serving(nats_server.url, **changes) as proxied:
        headers = {
            "origin": "https://billing.example",
            "x-forwarded-for": "192.0.2.66, 192.0.2.7, 10.1.2.3",
        }
        form = {"token": make_token(SIGN_IN_LINK_START)}
        answer = await proxied.client.post("/sign-in", data=form, headers=headers)
        cookie = cookie_of(answer)
        assert cookie["name"] == SECURE_COOKIE
        assert "secure" in cookie
        [(_, request)] = proxied.world.requests
        assert isinstance(request, members_pb2.SignInRequest)
        assert request.address == "192.0.2.7"
        proxied.world.answers["ListMetrics"] = aggregator_pb2.ListMetricsResponse()
        for name, status in ((SECURE_COOKIE, 200), (COOKIE, 401)):
            sent = {"cookie": f"theme=dark; {name}={cookie['value']}"}
            assert (await proxied.client.get("/api/metrics", headers=sent)).status_code == status
