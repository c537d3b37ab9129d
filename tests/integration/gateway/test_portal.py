"""The customer portal's pages, and that a link is nothing but that."""

import httpx
import pytest
from google.protobuf.message import Message
from usageflow.accounts.v1 import portal_pb2
from usageflow.aggregator.v1 import aggregator_pb2
from usageflow.invoicer.v1 import documents_pb2, invoicer_pb2

from cli.embedded import EmbeddedNats
from gateway.portal.visit import COOKIE, SECURE_COOKIE
from services.kit.keys import PORTAL_START, make_token
from tests.integration.gateway.conftest import Gateway, World, serving

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
        id="inv_1", number="INV-000001", customer_id=customer_id, currency="USD", amount="5.00"
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
    token = await opened(browser, world)
    del world.principals[token]
    for path in ("/portal", "/portal/invoices/inv_1", "/portal/invoices/inv_1/pdf"):
        answer = await browser.get(path)
        assert answer.status_code == 401, path
        assert "works no more" in answer.text
    answer = await browser.get(f"/portal?token={make_token(PORTAL_START)}")
    assert answer.headers["set-cookie"].startswith(f"{COOKIE}=; Path=/; Max-Age=0")
    assert (await browser.get("/portal?token=x")).status_code == 401


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
