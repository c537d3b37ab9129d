"""An endpoint that notifier itself has disabled: the dashboard and the audit log tell so."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cli.connection import Connection
from tests.e2e.api import POLL_S, Api
from tests.e2e.dashboard.conftest import Visitor

WAIT_S = 30.0


class Gone(BaseHTTPRequestHandler):
    """A receiver that is no more."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(410)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def gone_url() -> Iterator[str]:
    """Where such a receiver listens."""
    server = HTTPServer(("127.0.0.1", 0), Gone)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


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
