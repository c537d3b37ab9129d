"""What the overview tells without being asked: endpoints that were disabled, revenue so far."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from usageflow.common.v1 import common_pb2

from cli.connection import Connection
from tests.e2e.api import Api, issue_key, wait_for
from tests.e2e.dashboard.conftest import (
    WAIT_MS,
    Visitor,
    new_organization_id,
    receiver,
    sign_in_token,
)

expect.set_options(timeout=WAIT_MS)


@pytest.fixture
def gone() -> Iterator[str]:
    """An endpoint that answers 410 Gone."""
    with receiver(410) as (url, _bodies):
        yield f"{url}/gone"


def test_the_overview_tells_what_accrues_and_which_endpoint_was_disabled(
    new_visitor: Callable[[], Visitor], stack: Connection, stack_home: Path, gone: str
) -> None:
    organization_id = new_organization_id(stack, stack_home, "Noticed")
    key = issue_key(stack_home, stack.grpc["accounts"], organization_id, common_pb2.MODE_TEST)
    api = Api(stack.http, key)
    endpoint = api.post("/api/webhooks", {"url": gone})["id"]
    api.post(f"/api/webhooks/{endpoint}/test", {})
    wait_for("410", lambda: not api.get(f"/api/webhooks/{endpoint}")["enabled"], 60)
    plan = {"name": "P", "currency": "EUR", "basePrice": "0.00"}
    api.post("/api/metrics", {"key": "NOTICED"})
    price = {"metric": "NOTICED", "model": "PER_UNIT", "unitPrice": "2"}
    plan_id = api.post("/api/plans", plan | {"metrics": [price]})["id"]
    api.post("/api/subscriptions", {"customerId": "c", "planId": plan_id})
    api.track(metric="NOTICED", amount=1000, customerId="c")
    api.await_usage("1000", metric="NOTICED")
    visitor = new_visitor()
    visitor.sign_in(sign_in_token(stack, stack_home, organization_id))
    page = visitor.page
    note = page.get_by_role("status")
    expect(note).to_contain_text("was disabled")
    expect(note).to_contain_text("it answered 410 Gone")
    figure = page.locator(".figure", has_text="revenue so far")
    expect(figure).to_contain_text("€2,000.00")
    expect(figure).to_contain_text("€0.00 invoiced")
    visitor.keep("overview-notices")
    note.get_by_role("link").click()
    expect(page.get_by_role("heading", name=gone)).to_be_visible()
    assert visitor.faults == []
