"""Which routes take If-Match, and why the others do not."""

import httpx
import pytest
from google.protobuf.message import Message

from tests.integration.gateway.conftest import Gateway, World, as_member
from tests.integration.gateway.route_cases import Case
from tests.integration.gateway.test_routes_over_http import CASES, sent_body

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAKES = "makes something new, or does something once: Idempotency-Key is for that"
STATE = "moves it from one state to the next: 409 when it is in none that this follows on"
ASKS = "changes nothing"
SEEN_WHOLE = "sets the one value that it sends, or ends what has nothing else to lose"
OWN = "of nobody but the caller"

# In the place of an id, but none.
WORDS = {"check", "default", "deliveries"}
# What somebody reads, edits, and sends back.
TAKES = {
    "PATCH /api/organization",
    "PATCH /api/billing-settings",
    "PUT /api/issuer",
    "POST /api/customers",
    "PATCH /api/customers/{customer_id}",
    "PUT /api/tax-rates/default",
    "PUT /api/customers/{customer_id}/tax-rates",
    "PUT /api/customers/{customer_id}/payment-method",
    "DELETE /api/customers/{customer_id}/payment-method",
    "PATCH /api/metrics/{key}",
    "POST /api/quotas",
    "DELETE /api/quotas/{quota_id}",
    "PATCH /api/webhooks/{webhook_id}",
    "DELETE /api/webhooks/{webhook_id}",
    "PATCH /api/keys/{key_id}",
    "DELETE /api/keys/{key_id}",
    "PATCH /api/members/{member_id}",
    "DELETE /api/members/{member_id}",
    "DELETE /api/invitations/{invitation_id}",
    "DELETE /api/charges/{charge_id}",
    "PUT /api/subscriptions/{subscription_id}/budget",
    "DELETE /api/subscriptions/{subscription_id}/budget",
}
# Where it is read.
SHOWS = {
    "GET /api/organization",
    "GET /api/billing-settings",
    "GET /api/issuer",
    "GET /api/customers/{customer_id}",
    "GET /api/tax-rates/default",
    "GET /api/customers/{customer_id}/tax-rates",
    "GET /api/customers/{customer_id}/payment-method",
    "GET /api/metrics/{key}",
    "GET /api/quotas/{quota_id}",
    "GET /api/webhooks/{webhook_id}",
    "GET /api/keys/{key_id}",
    "GET /api/members/{member_id}",
    "GET /api/invitations/{invitation_id}",
    "GET /api/charges/{charge_id}",
    "GET /api/subscriptions/{subscription_id}/budget",
}
NEEDS_NONE = {
    "POST /api/track": MAKES,
    "POST /api/track/batch": MAKES,
    "POST /api/metrics": MAKES,
    "POST /api/plans": MAKES,
    "POST /api/plans/{plan_id}/versions": MAKES,
    "POST /api/subscriptions": MAKES,
    "POST /api/subscriptions/{subscription_id}/discounts": MAKES,
    "POST /api/charges": MAKES,
    "POST /api/invoices/{invoice_id}/credit-notes": MAKES,
    "POST /api/tax-rates": MAKES,
    "POST /api/webhooks": MAKES,
    "POST /api/keys": MAKES,
    "POST /api/invitations": MAKES,
    "POST /api/portal-links": MAKES,
    "POST /api/test-clocks": MAKES,
    "POST /api/customers/{customer_id}/credits/grants": MAKES,
    "POST /api/customers/{customer_id}/credits/debits": MAKES,
    "POST /api/quotas/reservations": MAKES,
    "POST /api/keys/{key_id}/rotate": MAKES,
    "POST /api/webhooks/{webhook_id}/rotate-secret": MAKES,
    "POST /api/webhooks/{webhook_id}/test": MAKES,
    "POST /api/webhooks/{webhook_id}/replay": MAKES,
    "POST /api/webhooks/deliveries/{delivery_id}/replay": MAKES,
    "POST /api/invoices/{invoice_id}/collect": MAKES,
    "POST /api/plans/{plan_id}/migrate": MAKES,
    "POST /api/metrics/{key}/archive": STATE,
    "POST /api/metrics/{key}/unarchive": STATE,
    "POST /api/events/{event_id}/void": STATE,
    "POST /api/customers/{customer_id}/credits/grants/{grant_id}/void": STATE,
    "POST /api/invoices/{invoice_id}/pay": STATE,
    "POST /api/invoices/{invoice_id}/fail": STATE,
    "POST /api/invoices/{invoice_id}/void": STATE,
    "POST /api/subscriptions/{subscription_id}/cancel": STATE,
    "POST /api/subscriptions/{subscription_id}/uncancel": STATE,
    "POST /api/subscriptions/{subscription_id}/pause": STATE,
    "POST /api/subscriptions/{subscription_id}/resume": STATE,
    "POST /api/subscriptions/{subscription_id}/change": STATE,
    "POST /api/discounts/{discount_id}/end": STATE,
    "POST /api/keys/{key_id}/revoke": STATE,
    "POST /api/quotas/reservations/{reservation_id}/commit": STATE,
    "POST /api/quotas/reservations/{reservation_id}/release": STATE,
    "POST /api/test-clocks/{test_clock_id}/advance": STATE,
    "DELETE /api/test-clocks/{test_clock_id}": STATE,
    "PUT /api/customers/{customer_id}/credits/low-balance": SEEN_WHOLE,
    "DELETE /api/portal-links/{portal_link_id}": SEEN_WHOLE,
    "PATCH /api/sessions/current": OWN,
    "PUT /api/sessions/current/password": OWN,
    "DELETE /api/sessions/{session_id}": OWN,
    "POST /api/plans/quote": ASKS,
    "POST /api/plans/simulate": ASKS,
    "POST /api/invoices/preview": ASKS,
    "POST /api/subscriptions/{subscription_id}/change/preview": ASKS,
}


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Gateway:
    """One gateway for all tests here."""
    return shared_gateway.forgetful()


async def test_every_route_that_changes_something_takes_if_match_or_has_a_reason(
    http: httpx.AsyncClient,
) -> None:
    document = (await http.get("/api/openapi.json")).json()
    changing = {
        f"{method.upper()} {path}": "If-Match"
        in {parameter["name"] for parameter in operation.get("parameters", [])}
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "get"
    }
    assert {route for route, takes in changing.items() if takes} == TAKES
    assert {route for route, takes in changing.items() if not takes} == NEEDS_NONE.keys()


def fits(route: str, case: Case) -> bool:
    """Whether the case is of the route."""
    wanted = route.split("/")
    given = f"{case.method} {case.path.partition('?')[0]}".split("/")
    return len(wanted) == len(given) and all(
        one == other or (one.startswith("{") and other not in WORDS)
        for one, other in zip(wanted, given, strict=True)
    )


def tagged(answer: Message | Exception) -> Message | Exception:
    """The same answer, in which every resource has the tag "now"."""
    if isinstance(answer, Exception):
        return answer
    copy = type(answer)()
    copy.CopyFrom(answer)
    for field, value in copy.ListFields():
        if field.message_type and "etag" in field.message_type.fields_by_name:
            value.etag = "now"
    return copy


TAGGED = [case for case in CASES if any(fits(route, case) for route in TAKES | SHOWS)]


async def test_every_route_with_tags_has_a_case() -> None:
    for route in TAKES | SHOWS:
        assert any(fits(route, case) for case in TAGGED), route


@pytest.mark.parametrize("case", TAGGED, ids=lambda case: f"{case.method} {case.path[:40]}")
async def test_the_tag_goes_to_the_service_and_comes_with_the_answer(
    http: httpx.AsyncClient, world: World, case: Case
) -> None:
    world.answers = {rpc: tagged(answer) for rpc, answer in case.others.items()}
    world.answers[case.rpc] = tagged(case.answer)
    if case.member:
        as_member(http, world)
    arguments = sent_body(case.body)
    headers = arguments.pop("headers", {})
    if case.method != "GET":
        headers |= {"If-Match": '"now"'}
    answer = await http.request(case.method, case.path, headers=headers, **arguments)
    assert answer.status_code == case.status, answer.text
    if case.method != "GET":
        asked = [request for rpc, request in world.requests if rpc == case.rpc]
        assert list(asked[-1].if_match) == ["now"]  # type: ignore[attr-defined]
    if answer.content:
        assert answer.headers["etag"] == '"now"'
