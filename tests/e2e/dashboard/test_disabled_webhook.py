"""An endpoint that notifier itself has disabled: the dashboard and the audit log tell so."""

import time
from collections.abc import Iterator

import pytest

from cli.connection import Connection
from tests.e2e.api import POLL_S, Api
from tests.e2e.dashboard.conftest import Visitor, receiver

WAIT_S = 30.0


@pytest.fixture
def gone_url() -> Iterator[str]:
    """Where such a receiver listens."""
    with receiver(410) as (url, _bodies):
        yield f"{url}/"


def test_the_dashboard_and_the_audit_log_tell_of_an_endpoint_that_was_disabled(
    owner: Visitor, stack: Connection, gone_url: str
) -> None:
    api = Api(stack.http, stack.api_key)
    webhook_id = api.post("/api/webhooks", {"url": gone_url, "events": ["invoice.paid"]})["id"]
    assert "410" not in owner.open(f"/webhooks/{webhook_id}").locator("main").inner_text()
    api.post(f"/api/webhooks/{webhook_id}/test", {})
    deadline_s = time.monotonic() + WAIT_S
    while api.get(f"/api/webhooks/{webhook_id}")["enabled"]:
        assert time.monotonic() < deadline_s
        time.sleep(POLL_S)
    page = owner.open(f"/webhooks/{webhook_id}")
    assert "answered that it is gone (410)" in page.get_by_role("status").first.inner_text()
    owner.keep("webhook-disabled")
    assert "answered 410" in owner.open("/webhooks").locator("main").inner_text()
    while not (told := api.get("/api/audit", action="webhook.disabled")["data"]):
        assert time.monotonic() < deadline_s
        time.sleep(POLL_S)
    assert told[0]["action"] == "webhook.disabled"
    page.get_by_role("link", name=gone_url).first.click()
    page.get_by_role("button", name="Enable", exact=True).click()
    page.get_by_text("Disable", exact=True).wait_for()
    assert page.get_by_text("answered that it is gone").count() == 0
