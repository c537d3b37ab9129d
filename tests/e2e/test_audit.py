"""What is done over HTTP is found in the audit log."""

from typing import Any

import pytest

from cli.connection import Connection
from tests.e2e.api import Api, new_key, wait_for

# What another service tells is there within a second or two; a busy machine takes longer.
WAIT_S = 30.0


@pytest.fixture
def api(stack: Connection) -> Api:
    """The stack's own organization."""
    return Api(stack.http, stack.api_key)


def entries(api: Api, target_id: str, **filters: str) -> list[dict[str, Any]]:
    """What was done to one thing, newest first."""
    return list(api.get("/api/audit", targetId=target_id, **filters)["data"])


def test_webhooks_keys_voids_and_settings_leave_entries(api: Api) -> None:
    key = api.post("/api/keys", {"name": "server", "scopes": ["read"]})
    hook = api.post("/api/webhooks", {"url": "http://127.0.0.1:9/"})
    event = api.ok(api.track(new_key()))["eventId"]
    api.post(f"/api/events/{event}/void", {"reason": "a typo"})
    assert api.http.delete(f"/api/webhooks/{hook['id']}").is_success
    wait_for("the void", lambda: entries(api, event), WAIT_S)
    wait_for("the end of the webhook", lambda: len(entries(api, hook["id"])) == 2, WAIT_S)
    [void] = entries(api, event)
    assert (void["action"], void["details"]["reason"]) == ("event.voided", "a typo")
    assert [entry["action"] for entry in entries(api, hook["id"])] == [
        "webhook.deleted",
        "webhook.created",
    ]
    [made] = entries(api, key["id"], action="api_key.*")
    assert made["keyId"] == void["keyId"]
    assert made["requestId"].startswith("req_")
    reader = Api(str(api.http.base_url), key["secret"])
    assert reader.http.get("/api/audit").status_code == 403
