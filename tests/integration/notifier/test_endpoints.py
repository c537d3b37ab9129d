"""Endpoints: what they can be told, how their secrets are kept, and what disabling means."""

import base64
import json

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import text

from services.kit.database import Database
from services.kit.errors import InvalidArgumentError, NotFoundError, PreconditionError
from services.notifier.domain import EndpointChange
from services.notifier.sealing import Sealer
from services.notifier.secret_store import UnknownKeyError, seal_all
from services.notifier.signing import format_public_key
from tests.integration.notifier.conftest import (
    ACME,
    Received,
    Receiver,
    World,
    Worlds,
    make_event,
    status,
)

OWN_SECRET = "whsec_" + base64.b64encode(b"my own secret, of 32 bytes......").decode()


def verify_ed25519(received: Received, public_key: bytes | None) -> None:
    """Raises unless one of the signatures is of this key."""
    verifier = Ed25519PublicKey.from_public_bytes(public_key or b"")
    headers = received.headers
    content = f"{received.webhook_id}.{headers['webhook-timestamp']}.".encode() + received.body
    for element in headers["webhook-signature"].split(" "):
        kind, _, signature = element.partition(",")
        if kind == "v1a":
            return verifier.verify(base64.b64decode(signature), content)
    raise InvalidSignature


async def test_a_pattern_takes_a_group_of_types(world: World, receiver: Receiver) -> None:
    await world.endpoint(receiver.url, "invoice.*")
    events = [make_event("invoice.paid"), make_event("subscription.created")]
    assert await world.notifier.take_events(events) == 1
    assert (await receiver.next()).webhook_id == events[0].id


async def test_webhooks_carry_the_endpoints_own_headers_and_ours_stay(
    world: World, receiver: Receiver
) -> None:
    headers = {"Authorization": "Bearer private", "x-env": "test"}
    endpoint, secret = await world.endpoint(receiver.url, headers=headers)
    assert endpoint.header_names == ("Authorization", "x-env")
    await world.notifier.take_events([make_event()])
    received = await receiver.next()
    assert received.headers["authorization"] == "Bearer private"
    assert received.headers["x-env"] == "test"
    assert received.verified_by(secret)


async def test_an_endpoint_is_changed_and_what_is_left_out_stays(
    world: World, receiver: Receiver
) -> None:
    endpoint, secret = await world.endpoint(
        receiver.url + "/old", "invoice.paid", headers={"x-a": "1"}, rate_limit=5
    )
    change = EndpointChange(url=receiver.url + "/new", event_types=["*"], headers={"x-b": "2"})
    changed = await world.notifier.update_endpoint(ACME, endpoint.id, change)
    assert (changed.event_types, changed.header_names) == (("*",), ("x-b",))
    assert (changed.rate_limit, changed.enabled) == (5, True)
    await world.notifier.take_events([make_event("invoice.created")])
    received = await receiver.next()
    assert (received.path, received.headers["x-b"]) == ("/hooks/new", "2")
    assert "x-a" not in received.headers
    assert received.verified_by(secret)
    unchanged = await world.notifier.update_endpoint(ACME, endpoint.id, EndpointChange())
    assert unchanged == changed


async def test_all_that_is_wrong_with_a_change_is_told_at_once(
    world: World, receiver: Receiver
) -> None:
    endpoint, _ = await world.endpoint(receiver.url)
    change = EndpointChange(
        url="ftp://x",
        event_types=["x"],
        description="x" * 501,
        rate_limit=-1,
        headers={"host": "x"},
    )
    with pytest.raises(InvalidArgumentError) as refused:
        await world.notifier.update_endpoint(ACME, endpoint.id, change)
    fields = [problem.field for problem in refused.value.problems]
    assert fields == ["url", "events", "description", "rateLimit", "headers[host]"]
    with pytest.raises(NotFoundError):
        await world.notifier.update_endpoint(ACME, "whe_" + "0" * 32, EndpointChange())


async def test_disabling_ends_what_is_pending_as_failed_and_enabling_begins_anew(
    make_world: Worlds, receiver: Receiver
) -> None:
    world = await make_world(webhook_retry_delays_s="0,3600")
    endpoint, _ = await world.endpoint(receiver.url)
    receiver.answers = [status(500)]
    await world.notifier.take_events([make_event()])
    await world.recorder.next()
    disabled = await world.notifier.update_endpoint(
        ACME, endpoint.id, EndpointChange(enabled=False)
    )
    assert (disabled.enabled, disabled.disabled_reason) == (False, "requested")
    assert disabled.disable_time is not None
    (delivery,), _ = await world.listed(endpoint.id)
    assert (delivery.status, len(delivery.attempts)) == ("failed", 1)
    assert await world.notifier.take_events([make_event()]) == 0
    with pytest.raises(PreconditionError, match="disabled"):
        await world.notifier.send_test(ACME, endpoint.id)
    enabled = await world.notifier.update_endpoint(ACME, endpoint.id, EndpointChange(enabled=True))
    assert (enabled.enabled, enabled.disabled_reason, enabled.disable_time) == (True, "", None)
    assert await world.notifier.take_events([make_event()]) == 1
    await receiver.next()


async def test_an_ed25519_endpoint_shows_its_public_key_and_nobody_sees_the_other(
    world: World, receiver: Receiver, database: Database
) -> None:
    endpoint, secret = await world.endpoint(receiver.url, signature_kind="v1a")
    assert secret == ""
    assert format_public_key(endpoint.public_key).startswith("whpk_")
    await world.notifier.take_events([make_event()])
    received = await receiver.next()
    verify_ed25519(received, endpoint.public_key)
    assert received.headers["webhook-signature"].startswith("v1a,")
    shown = await world.notifier.get_endpoint(ACME, endpoint.id)
    assert shown == endpoint


async def test_a_rotation_to_ed25519_lets_the_old_secret_sign_too(
    world: World, receiver: Receiver
) -> None:
    endpoint, old = await world.endpoint(receiver.url)
    key = await world.notifier.rotate_secret(ACME, endpoint.id, "v1a")
    await world.notifier.take_events([make_event()])
    received = await receiver.next()
    assert received.verified_by(old)
    verify_ed25519(received, key.public_key)
    again = await world.notifier.rotate_secret(ACME, endpoint.id)
    assert again.kind == "v1a"
    assert again.public_key != key.public_key


async def test_a_secret_of_the_caller_s_own_signs(world: World, receiver: Receiver) -> None:
    endpoint, secret = await world.endpoint(receiver.url, secret=OWN_SECRET)
    assert secret == OWN_SECRET
    await world.notifier.take_events([make_event()])
    assert (await receiver.next()).verified_by(OWN_SECRET)
    seed = "whsk_" + base64.b64encode(b"s" * 32).decode()
    assert (await world.notifier.rotate_secret(ACME, endpoint.id, secret=seed)).kind == "v1a"
    for kind, wrong in (("v1a", OWN_SECRET), ("", "whsec_short")):
        with pytest.raises(InvalidArgumentError) as refused:
            await world.notifier.rotate_secret(ACME, endpoint.id, kind, wrong)
        assert [problem.field for problem in refused.value.problems] == ["secret"]


async def dump(database: Database, table: str) -> str:
    """All of a table, with bytes both as they are shown and as they are."""
    async with database.transaction() as connection:
        rows = (await connection.execute(text(f"SELECT * FROM {table}"))).all()
    return " ".join(f"{row} {b''.join(v for v in row if isinstance(v, bytes))!r}" for row in rows)


async def test_secrets_and_headers_are_not_readable_in_the_database(
    world: World, receiver: Receiver, database: Database
) -> None:
    await world.endpoint(receiver.url, secret=OWN_SECRET, headers={"authorization": "private"})
    stored = await dump(database, "endpoint_secrets") + await dump(database, "endpoints")
    for private in (OWN_SECRET.removeprefix("whsec_"), "my own secret", "private"):
        assert private not in stored


async def test_what_an_older_version_stored_in_plain_is_sealed_at_the_start(
    world: World, receiver: Receiver, database: Database
) -> None:
    await world.endpoint(receiver.url)
    key = base64.b64decode(OWN_SECRET.removeprefix("whsec_"))
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE endpoint_secrets SET key = :key, sealed = NULL"), {"key": key}
        )
    assert await seal_all(database, world.sealer) == 1
    assert "my own secret" not in await dump(database, "endpoint_secrets")
    assert await seal_all(database, world.sealer) == 0
    await world.notifier.take_events([make_event()])
    assert (await receiver.next()).verified_by(OWN_SECRET)


async def test_the_key_can_be_changed_and_a_wrong_one_stops_the_start(
    make_world: Worlds, receiver: Receiver, database: Database
) -> None:
    old, new = "s" * 32, "n" * 32
    first = await make_world(webhook_secrets_key=old)
    await first.endpoint(receiver.url, secret=OWN_SECRET, headers={"x-a": "1"})
    with pytest.raises(UnknownKeyError, match="WEBHOOK_SECRETS_KEY"):
        await seal_all(database, Sealer([new]))
    assert await seal_all(database, Sealer([new, old])) == 2
    assert await seal_all(database, Sealer([new])) == 0


async def test_an_endpoint_whose_secret_does_not_open_holds_up_no_other(
    world: World, receiver: Receiver, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when somebody has moved a secret in the database: it opens in its own place only."""
    moved, _ = await world.endpoint(receiver.url + "/moved")
    other, _ = await world.endpoint(receiver.url + "/other")
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "UPDATE endpoint_secrets SET sealed ="
                " (SELECT sealed FROM endpoint_secrets WHERE endpoint_id = :other)"
                " WHERE endpoint_id = :moved"
            ),
            {"moved": moved.id, "other": other.id},
        )
    await world.notifier.take_events([make_event()])
    assert (await receiver.next()).path == "/hooks/other"
    await world.recorder.next()
    assert receiver.requests.empty()
    assert "endpoint_sealed" in "".join(capsys.readouterr())


async def test_a_deleted_endpoint_keeps_no_secret(
    world: World, receiver: Receiver, database: Database
) -> None:
    endpoint, _ = await world.endpoint(receiver.url, headers={"x-a": "1"})
    await world.notifier.delete_endpoint(ACME, endpoint.id)
    async with database.transaction() as connection:
        secrets = await connection.execute(text("SELECT count(*) FROM endpoint_secrets"))
        headers = await connection.execute(text("SELECT sealed_headers FROM endpoints"))
    assert (secrets.scalar_one(), headers.scalar_one()) == (0, None)


async def test_headers_and_secrets_are_not_logged(
    world: World, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.always = status(500)
    await world.endpoint(receiver.url, secret=OWN_SECRET, headers={"authorization": "private"})
    await world.notifier.take_events([make_event()])
    for _ in range(3):
        await world.recorder.next()
    output = "".join(capsys.readouterr())
    assert "webhook_attempt_failed" in output
    assert "private" not in output
    assert json.dumps(OWN_SECRET) not in output
