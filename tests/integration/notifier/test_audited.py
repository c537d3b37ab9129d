"""What is done to endpoints is told to the audit log, with who did it, and without a secret."""

import json
from typing import Any

import pytest
from sqlalchemy import text

from services.kit import audit
from services.kit.database import Database
from services.kit.errors import DomainError
from services.notifier.domain import EndpointChange, NewEndpoint
from tests.integration.notifier.conftest import ACME, Receiver, World, make_event, status

OWN_SECRET = "whsec_" + "c2VjcmV0" * 4
HEADERS = {"x-token": "header-value"}


async def told(database: Database) -> list[tuple[str, str, str, Any]]:
    """(action, target, key, details) of everything told, in order."""
    async with database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT payload FROM audit_outbox ORDER BY create_time, message_id")
        )
        events = [audit.from_bytes(payload) for payload in rows.scalars()]
    assert {event.tenant for event in events} <= {ACME}
    return [
        (event.action, event.target_id, event.key_id, json.loads(event.details_json))
        for event in events
    ]


async def test_all_that_is_done_to_an_endpoint_is_told(
    world: World, receiver: Receiver, database: Database
) -> None:
    notifier = world.notifier
    new = NewEndpoint(receiver.url, ["invoice.*"], "Ours", headers=HEADERS, secret=OWN_SECRET)
    endpoint, _ = await notifier.create_endpoint(ACME, new, by_key="key_1")
    change = EndpointChange(description="Theirs", enabled=False)
    await notifier.update_endpoint(ACME, endpoint.id, change, by_key="key_2")
    await notifier.update_endpoint(ACME, endpoint.id, change, by_key="key_2")
    await notifier.update_endpoint(ACME, endpoint.id, EndpointChange(headers=HEADERS))
    await notifier.rotate_secret(ACME, endpoint.id, "v1a", by_key="key_3")
    await notifier.delete_endpoint(ACME, endpoint.id, by_key="key_4")
    await notifier.delete_endpoint(ACME, endpoint.id, by_key="key_4")
    shown = {
        "url": receiver.url,
        "events": ["invoice.*"],
        "description": "Ours",
        "enabled": True,
        "rateLimit": 0,
        "headerNames": ["x-token"],
        "signature": "HMAC_SHA256",
    }
    changed = {"description": "Theirs", "enabled": False}
    assert await told(database) == [
        ("webhook.created", endpoint.id, "key_1", shown),
        (
            "webhook.updated",
            endpoint.id,
            "key_2",
            {"before": {"description": "Ours", "enabled": True}, "after": changed},
        ),
        ("webhook.updated", endpoint.id, "", {"headersSet": True}),
        (
            "webhook.secret_rotated",
            endpoint.id,
            "key_3",
            {"before": "HMAC_SHA256", "after": "ED25519", "ownSecret": False},
        ),
        ("webhook.deleted", endpoint.id, "key_4", shown | changed | {"signature": "ED25519"}),
    ]


async def test_no_secret_and_no_header_value_is_told(
    world: World, receiver: Receiver, database: Database
) -> None:
    endpoint, secret = await world.endpoint(receiver.url, headers=HEADERS)
    key = await world.notifier.rotate_secret(ACME, endpoint.id)
    await world.notifier.rotate_secret(ACME, endpoint.id, secret=OWN_SECRET)
    printed = json.dumps(await told(database))
    for private in (secret, key.secret, OWN_SECRET, "header-value"):
        assert private.removeprefix("whsec_") not in printed


async def test_an_endpoint_that_is_disabled_because_it_fails_is_told_of(
    world: World, receiver: Receiver, database: Database
) -> None:
    endpoint, _ = await world.endpoint(receiver.url)
    receiver.answers = [status(410)]
    await world.notifier.take_events([make_event()])
    await world.recorder.next()
    action, target_id, key_id, details = (await told(database))[-1]
    assert (action, target_id, key_id) == ("webhook.disabled", endpoint.id, "")
    assert details["reason"] == "GONE"


async def test_what_is_refused_is_not_told(
    world: World, receiver: Receiver, database: Database
) -> None:
    with pytest.raises(DomainError):
        await world.endpoint("ftp://example.com")
    with pytest.raises(DomainError):
        await world.notifier.delete_endpoint(ACME, "whe_" + "0" * 32)
    with pytest.raises(DomainError):
        await world.notifier.rotate_secret(ACME, "whe_" + "0" * 32)
    assert await told(database) == []
