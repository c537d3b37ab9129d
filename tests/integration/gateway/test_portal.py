"""The customer portal's pages, and that a link is nothing but that."""

from datetime import timedelta

import httpx
import pytest
from google.protobuf.message import Message
from pydantic import SecretStr
from usageflow.accounts.v1 import portal_pb2
from usageflow.aggregator.v1 import aggregator_pb2
from usageflow.invoicer.v1 import documents_pb2, invoicer_pb2

from cli.embedded import EmbeddedNats
from gateway.portal.visit import COOKIE, SECURE_COOKIE
from services.kit import clock
from services.kit.keys import PORTAL_START, make_token
from services.kit.signatures import Signatures
from tests.integration.gateway.conftest import SIGNATURES, Gateway, World, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")
ADA = "ada <i>"


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Gateway:
    """One gateway for all tests here."""
    return shared_gateway.forgetful()


@pytest.fixture
def browser(gateway: Gateway) -> httpx.AsyncClient:
    """A browser in which no link was opened."""
    return gateway.client


def answers(customer_id: str) -> dict[str, Message]:
    """What the services tell of a customer."""
    invoice = invoicer_pb2.Invoice(
        id="inv_1",
        number="INV-000001",
        customer_id=customer_id,
        currency="USD",
        amount="5.00",
        credits_applied="0.00",
        amount_due="5.00",
    )
    return {
        "GetCurrentPortal": portal_pb2.GetCurrentPortalResponse(
            organization_name="Acme <b>", customer_id=customer_id
        ),
        "GetCustomer": invoicer_pb2.GetCustomerResponse(
            customer=invoicer_pb2.Customer(id=customer_id, name="Ada & Co")
        ),
        "ListSubscriptions": invoicer_pb2.ListSubscriptionsResponse(),
        "ListInvoices": invoicer_pb2.ListInvoicesResponse(invoices=[invoice]),
        "ListMetrics": aggregator_pb2.ListMetricsResponse(),
        "GetInvoice": invoicer_pb2.GetInvoiceResponse(invoice=invoice),
        "GetRenderedInvoice": documents_pb2.GetRenderedInvoiceResponse(
            content=b"%PDF", filename="INV-000001.pdf", customer_id=customer_id
        ),
    }


async def opened(browser: httpx.AsyncClient, world: World, customer_id: str = ADA) -> str:
    """Open a new link; its token."""
    token = world.new_portal_link(customer_id)
    answer = await browser.get(f"/portal?token={token}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/portal")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}={token}; Path=/; Max-Age=86")
    assert "HttpOnly; SameSite=Lax" in cookie
    browser.headers["cookie"] = f"{COOKIE}={token}"
    world.answers |= answers(customer_id)
    return token


async def test_a_link_shows_what_is_the_customers_under_a_strict_policy(
    browser: httpx.AsyncClient, world: World
) -> None:
    await opened(browser, world)
    answer = await browser.get("/portal")
    assert answer.status_code == 200, answer.text
    assert "Acme &lt;b&gt;" in answer.text
    assert "Ada &amp; Co" in answer.text
    assert "INV-000001" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert {each.customer_id for each in world.callers} == {ADA}
    assert (await browser.get("/portal/invoices/inv_1")).status_code == 200
    pdf = await browser.get("/portal/invoices/inv_1/pdf")
    assert (pdf.headers["content-type"], pdf.content) == ("application/pdf", b"%PDF")


async def test_what_is_another_customers_is_not_found(
    browser: httpx.AsyncClient, world: World
) -> None:
    """The services' interceptor throws the answer away, whatever the gateway asked."""
    await opened(browser, world)
    others = answers("bob")
    world.answers |= {name: others[name] for name in ("GetInvoice", "GetRenderedInvoice")}
    for path in ("/portal/invoices/inv_1", "/portal/invoices/inv_1/pdf"):
        answer = await browser.get(path)
        assert answer.status_code == 404
        assert "INV-000001" not in answer.text


async def test_a_link_that_works_no_more_says_so_everywhere(
    browser: httpx.AsyncClient, world: World
) -> None:
    del world.principals[await opened(browser, world)]
    for path in ("/portal", "/portal/invoices/inv_1", "/portal/invoices/inv_1/pdf"):
        answer = await browser.get(path)
        assert answer.status_code == 401, path
        assert "works no more" in answer.text
    unknown = SIGNATURES.portal_link(make_token(PORTAL_START), clock.now() + timedelta(days=1))
    answer = await browser.get(f"/portal?token={unknown}")
    assert answer.headers["set-cookie"].startswith(f"{COOKIE}=; Path=/; Max-Age=0")
    assert (await browser.get("/portal?token=x")).status_code == 401


async def test_a_made_up_link_works_nowhere_and_costs_no_look_up(
    browser: httpx.AsyncClient, world: World
) -> None:
    credential = world.new_portal_link(ADA)
    token, until, signature = credential.split(".")
    rotated = Signatures(SecretStr("another internal token, as long as that"))
    tomorrow = clock.now() + timedelta(days=1)
    made_up = [
        token,
        f"{token}.{until}",
        f"{token}.{int(until) + 1}.{signature}",
        credential[:-1],
        f"{make_token(PORTAL_START)}.{until}.{signature}",
        rotated.portal_link(token, tomorrow),
        # Rightly signed, but over.
        SIGNATURES.portal_link(token, clock.now() - timedelta(seconds=2)),
        SIGNATURES.session(token, "test"),
        world.new_session(),
        world.new_key(),
    ]
    for value in made_up:
        browser.headers.pop("cookie", None)
        opened = await browser.get(f"/portal?token={value}")
        # What begins like a link is taken out of the address, and no cookie is set.
        cookie = opened.headers.get("set-cookie", f"{COOKIE}=;")
        assert cookie.startswith(f"{COOKIE}=;"), value
        browser.headers["cookie"] = f"{COOKIE}={value}"
        assert (await browser.get("/portal")).status_code == 401, value
    assert (world.resolved, world.requests) == (0, [])


async def test_a_link_is_neither_a_key_nor_a_session(
    browser: httpx.AsyncClient, world: World
) -> None:
    token = await opened(browser, world)
    for headers in (
        {},
        {"x-usageflow-api-key": token},
        {"authorization": f"Bearer {token}"},
        {"cookie": f"usageflow-session={token}"},
        {"x-usageflow-session": token},
    ):
        answer = await browser.get("/api/invoices", headers=headers)
        assert answer.status_code == 401, headers
        event = {"metric": "A", "amount": 1}
        assert (await browser.post("/api/track", json=event, headers=headers)).status_code == 401
    assert (await browser.get("/dashboard")).status_code == 303
    for method in ("POST", "PUT", "DELETE"):
        answer = await browser.request(method, "/portal")
        assert answer.status_code == 405
    assert world.requests == []


async def test_with_https_the_cookie_is_for_this_host_alone(nats_server: EmbeddedNats) -> None:
    async with serving(nats_server.url, public_url="https://billing.example") as gateway:
        token = gateway.world.new_portal_link(ADA)
        answer = await gateway.client.get(f"/portal?token={token}")
        assert answer.headers["set-cookie"].startswith(f"{SECURE_COOKIE}={token}; Path=/; ")
        assert answer.headers["set-cookie"].endswith("; Secure")
        gateway.client.headers["cookie"] = f"{COOKIE}={token}"
        assert (await gateway.client.get("/portal")).status_code == 401
