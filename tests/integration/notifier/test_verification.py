"""Every kind of delivery, verified by packages that are not ours.

Those are standardwebhooks and svix from PyPI, and standardwebhooks from npm. None of them knows
ed25519: that is verified by OpenSSL, once by way of cryptography and once of Node.js.
"""

import asyncio
import base64
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest
import standardwebhooks
import svix.webhooks
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.kit import clock
from services.kit.ids import new_id
from services.notifier.domain import WebhookEvent, webhook_body
from services.notifier.filters import EVENT_TYPES
from services.notifier.listening import Listened, Listening
from services.notifier.signing import format_public_key
from tests.integration.notifier.conftest import (
    ACME,
    Received,
    Receiver,
    World,
    make_event,
    status,
)
from tests.tools import require_tool

SOURCE = Path(__file__).parent / "node_verifier"
INSTALL_S_MAX = 120
ANSWER_S_MAX = 20
OWN_SECRET = "whsec_" + base64.b64encode(bytes(range(64))).decode()

OTHER_SECRET = "whsec_" + base64.b64encode(b"another secret of some bytes").decode()

pytestmark = pytest.mark.timeout(2 * INSTALL_S_MAX)


class Node:
    """verify.js, running."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def verifies(self, received: Received, secret: str, ahead_s: int = 0) -> bool:
        """Whether npm's package (or Node's crypto, for a public key) verifies it, with its clock
        so far ahead.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        body = received.body.decode()
        signed = {"secret": secret, "headers": received.headers, "body": body}
        request = {**signed, "aheadSeconds": ahead_s}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), ANSWER_S_MAX)
        return bool(json.loads(line)["verified"])


@pytest.fixture(scope="module")
def node_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The verifier with what it needs, installed as its lock file says."""
    copy = tmp_path_factory.mktemp("verifier") / "node"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("node_modules"))
    command = [require_tool("npm"), "ci", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=copy, check=True, capture_output=True, timeout=INSTALL_S_MAX)
    return copy


@pytest.fixture
async def node(node_project: Path) -> AsyncIterator[Node]:
    """A running verifier."""
    process = await asyncio.create_subprocess_exec(
        require_tool("node"),
        "verify.js",
        cwd=node_project,
        env={"PATH": os.environ["PATH"]},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    yield Node(process)
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()


def verifies(verifier: type, received: Received, secret: str) -> bool:
    """Whether a Python package's Webhook verifies it."""
    try:
        verifier(secret).verify(received.body, received.headers)
    except (standardwebhooks.WebhookVerificationError, svix.webhooks.WebhookVerificationError):
        return False
    return True


async def verdicts(node: Node, received: Received, secret: str, ahead_s: int = 0) -> list[bool]:
    """What standardwebhooks and svix of PyPI and standardwebhooks of npm say."""
    with clock_ahead(ahead_s):
        python = [
            verifies(standardwebhooks.Webhook, received, secret),
            verifies(svix.webhooks.Webhook, received, secret),
        ]
    return [*python, await node.verifies(received, secret, ahead_s)]


@contextmanager
def clock_ahead(seconds: int) -> Iterator[None]:
    """Move the clock of the Python packages (svix verifies with standardwebhooks)."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standardwebhooks.webhooks, "datetime", Ahead)
        yield


async def check(node: Node, received: Received, *secrets: str) -> None:
    """All verify it with each of the secrets, and none with another or with a changed body."""
    for secret in secrets:
        assert await verdicts(node, received, secret) == [True] * 3
        changed = Received(received.path, received.headers, received.body + b" ")
        assert await verdicts(node, changed, secret) == [False] * 3
    assert await verdicts(node, received, OTHER_SECRET) == [False] * 3


async def test_a_first_attempt_a_retry_and_a_replay(
    world: World, receiver: Receiver, node: Node
) -> None:
    endpoint, secret = await world.endpoint(receiver.url)
    receiver.answers = [status(500)]
    await world.notifier.take_events([make_event()])
    for _ in range(2):
        await check(node, await receiver.next(), secret)
        await world.recorder.next()
    (delivery,), _ = await world.listed(endpoint.id)
    await world.deliveries.replay(ACME, delivery.id)
    await check(node, await receiver.next(), secret)


async def test_an_event_of_every_type_whatever_is_in_it(
    world: World, receiver: Receiver, node: Node
) -> None:
    _, secret = await world.endpoint(receiver.url)
    now = clock.now()
    data = (
        '{"customerId":"Zo\u00eb \U0001f9fe <\u2028>","amount":"0.10","sequence":9007199254740993}'
    )
    events = [
        WebhookEvent(new_id("whevt"), ACME, each, now, webhook_body(each, now, data))
        for each in EVENT_TYPES
    ]
    await world.notifier.take_events(events)
    types = []
    for _ in events:
        received = await receiver.next()
        await check(node, received, secret)
        types.append(str(received.verified_by(secret)["type"]))
    assert sorted(types) == sorted(EVENT_TYPES)


async def test_an_event_while_our_own_clock_is_moved(
    world: World, receiver: Receiver, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a rehearsal: receivers go by the time that it is, or would refuse everything."""
    _, secret = await world.endpoint(receiver.url)
    monkeypatch.setattr(clock, "_offset", timedelta(days=40))
    await world.notifier.take_events([make_event()])
    await check(node, await receiver.next(), secret)


async def test_a_replay_of_what_failed_and_of_what_was_missed(
    world: World, receiver: Receiver, node: Node
) -> None:
    await world.notifier.take_events([make_event()])
    endpoint, secret = await world.endpoint(receiver.url)
    await world.deliveries.replay_many(ACME, endpoint.id, "missed", None, None, "")
    await check(node, await receiver.next(), secret)
    await world.recorder.next()
    await world.deliveries.replay_many(ACME, endpoint.id, "all", None, None, "")
    await check(node, await receiver.next(), secret)


async def test_a_test_event_and_the_notice_of_a_disabled_endpoint(
    world: World, receiver: Receiver, node: Node
) -> None:
    gone, _ = await world.endpoint(receiver.url + "/gone")
    _, secret = await world.endpoint(receiver.url, "webhook.disabled")
    receiver.answers = [status(410)]
    await world.notifier.send_test(ACME, gone.id)
    assert (await receiver.next()).path.endswith("gone")
    await check(node, await receiver.next(), secret)
    tested, test_secret = await world.endpoint(receiver.url)
    await world.notifier.send_test(ACME, tested.id)
    await check(node, await receiver.next(), test_secret)


async def test_a_rotated_secret_and_one_of_the_caller_s_own_with_headers(
    world: World, receiver: Receiver, node: Node
) -> None:
    endpoint, old = await world.endpoint(receiver.url, headers={"authorization": "Bearer x"})
    await world.notifier.rotate_secret(ACME, endpoint.id, secret=OWN_SECRET)
    await world.notifier.take_events([make_event()])
    await check(node, await receiver.next(), old, OWN_SECRET)


async def test_an_event_that_is_listened_to(world: World, node: Node) -> None:
    stream = Listening(world.database).listen(ACME, [])
    secret = await anext(stream)
    assert isinstance(secret, str)
    await world.notifier.take_events([make_event()])
    item = await anext(stream)
    assert isinstance(item, Listened)
    headers = {
        "webhook-id": item.event.id,
        "webhook-timestamp": str(item.timestamp_s),
        "webhook-signature": item.signature,
    }
    await check(node, Received("", headers, item.event.body), secret)
    await stream.aclose()  # type: ignore[attr-defined]


def verified_by_openssl(received: Received, public_key: bytes) -> bool:
    headers = received.headers
    content = f"{received.webhook_id}.{headers['webhook-timestamp']}.".encode() + received.body
    (signature,) = (
        base64.b64decode(element.removeprefix("v1a,"))
        for element in headers["webhook-signature"].split(" ")
        if element.startswith("v1a,")
    )
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, content)
    except InvalidSignature:
        return False
    return True


async def test_ed25519_alone_and_beside_the_secret_that_it_replaces(
    world: World, receiver: Receiver, node: Node
) -> None:
    endpoint, secret = await world.endpoint(receiver.url)
    key = await world.notifier.rotate_secret(ACME, endpoint.id, "v1a")
    alone, _ = await world.endpoint(receiver.url + "/alone", signature_kind="v1a")
    await world.notifier.take_events([make_event()])
    public_keys = {"/hooks": key.public_key, "/hooks/alone": alone.public_key}
    for _ in public_keys:
        received = await receiver.next()
        public_key = public_keys[received.path]
        assert public_key is not None
        if received.path == "/hooks":
            await check(node, received, secret)
        changed = Received(received.path, received.headers, received.body + b" ")
        text = format_public_key(public_key)
        for webhook, expected in ((received, True), (changed, False)):
            assert verified_by_openssl(webhook, public_key) is expected
            assert await node.verifies(webhook, text) is expected


@pytest.mark.parametrize("ahead_s", [-360, 360])
async def test_a_receiver_whose_clock_is_off_refuses_and_that_is_recorded(
    world: World, receiver: Receiver, node: Node, ahead_s: int
) -> None:
    """The packages allow five minutes. Once its clock is right again it takes the next attempt."""
    endpoint, secret = await world.endpoint(receiver.url)
    clocks = [ahead_s, 0]

    async def verify(request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        received = Received(request.path, headers, await request.read())
        with clock_ahead(clocks.pop(0)):
            good = verifies(standardwebhooks.Webhook, received, secret)
        return web.Response(status=200 if good else 400, text="thanks" if good else "no")

    receiver.always = verify
    await world.notifier.take_events([make_event()])
    for _ in range(2):
        received = await receiver.next()
        assert await verdicts(node, received, secret, ahead_s) == [False] * 3
        await check(node, received, secret)
        await world.recorder.next()
    (delivery,), _ = await world.listed(endpoint.id)
    recorded = [(a.response_status, a.error, a.response_body) for a in delivery.attempts]
    assert recorded == [(400, "http_status", b"no"), (200, "", b"thanks")]


def test_the_lock_file_names_versions_and_no_registry() -> None:
    lock = json.loads((SOURCE / "package-lock.json").read_text())
    packages = {path: entry for path, entry in lock["packages"].items() if path}
    assert not [path for path, entry in packages.items() if "resolved" in entry]
    wanted = json.loads((SOURCE / "package.json").read_text())["dependencies"]
    for package, pinned in wanted.items():
        assert packages[f"node_modules/{package}"]["version"] == pinned
