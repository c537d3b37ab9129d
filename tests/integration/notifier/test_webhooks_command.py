"""`usageflow webhooks` against a running notifier."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from usageflow.notifier.v1 import notifier_pb2 as pb
from usageflow.notifier.v1 import notifier_pb2_grpc

from cli.errors import StackError
from cli.webhooks import actions
from cli.webhooks.client import find_notifier
from cli.webhooks.listen import check_url, listen
from services.kit.database import TenantKey
from services.kit.grpc_client import api_key_metadata, open_channel
from services.kit.grpc_server import GrpcServer
from services.notifier import listening, repository
from services.notifier.listening import Listening
from services.notifier.servicer import NotifierServicer
from tests.integration.notifier.conftest import (
    ACME,
    WAIT_S,
    Receiver,
    World,
    make_event,
    status,
)
from tests.integration.notifier.test_notifier_grpc import KnownKeys

HOME = Path("/nowhere")
OTHER = TenantKey("org_" + "b" * 32, "test")


@pytest.fixture
async def address(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A notifier's address, which the commands find in the environment."""
    server = GrpcServer(world.settings, KnownKeys())
    server.add(
        notifier_pb2_grpc.add_NotifierServiceServicer_to_server,
        NotifierServicer(world.notifier, world.deliveries, Listening(world.database)),
        "usageflow.notifier.v1.NotifierService",
    )
    await server.start()
    address = f"127.0.0.1:{server.port}"
    monkeypatch.setenv("USAGEFLOW_NOTIFIER_ADDRESS", address)
    monkeypatch.setenv("USAGEFLOW_API_KEY", "admin")
    yield address
    await server.stop()


class Lines:
    """What a command printed."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[str] = asyncio.Queue()

    def __call__(self, line: str) -> None:
        self._queue.put_nowait(line)

    async def until(self, part: str) -> str:
        """The next line that contains `part`."""
        async with asyncio.timeout(WAIT_S):
            while part not in (line := await self._queue.get()):
                pass
        return line


@asynccontextmanager
async def running(command: Callable[[Lines], Awaitable[None]]) -> AsyncIterator[Lines]:
    """A command that runs until the block ends."""
    lines = Lines()
    task = asyncio.ensure_future(command(lines))
    yield lines
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_list_tells_how_each_endpoint_is_doing(
    address: str, world: World, receiver: Receiver
) -> None:
    receiver.answers = [status(500)]
    endpoint, _ = await world.endpoint(receiver.url, "invoice.*")
    await world.notifier.take_events([make_event()])
    for _ in range(2):
        await world.recorder.next()
    lines = Lines()
    await actions.list_endpoints(HOME, lines)
    assert "healthy" in await lines.until(endpoint.id)
    assert "attempts: ok 1, http_status 1" in await lines.until("100.0 % arrived; 0 pending")


async def test_replay_takes_a_delivery_or_an_endpoint(
    address: str, world: World, receiver: Receiver
) -> None:
    endpoint, _ = await world.endpoint(receiver.url)
    receiver.answers = [status(500)] * 3
    await world.notifier.take_events([make_event()])
    for _ in range(3):
        await world.recorder.next()
    lines = Lines()
    await actions.replay_many(HOME, endpoint.id, "failed", None, None, lines)
    await lines.until("1 will be sent again")
    await world.recorder.next()
    (delivery,), _ = await world.listed(endpoint.id)
    await actions.replay_one(HOME, delivery.id, lines)
    await lines.until("SUCCEEDED")
    with pytest.raises(StackError, match="No such delivery"):
        await actions.replay_one(HOME, "whd_" + "0" * 32, lines)


async def test_tail_shows_deliveries_as_they_come_and_are_attempted(
    address: str, world: World, receiver: Receiver
) -> None:
    endpoint, _ = await world.endpoint(receiver.url)
    async with running(lambda lines: actions.tail(HOME, endpoint.id, lines)) as lines:
        await lines.until("following")
        await world.notifier.take_events([make_event("invoice.paid")])
        assert "invoice.paid" in await lines.until("SUCCEEDED")


async def test_listen_forwards_test_events_signed_with_the_secret_it_shows(
    address: str, world: World, receiver: Receiver
) -> None:
    before = make_event()
    await world.notifier.take_events([before])
    command = lambda lines: listen(HOME, receiver.url, ["invoice.*"], lines)  # noqa: E731
    async with running(command) as lines:
        secret = (await lines.until("whsec_")).rpartition(" ")[2]
        wanted = make_event("invoice.paid")
        others = [make_event("subscription.created"), make_event("invoice.paid", OTHER)]
        live = make_event("invoice.paid", TenantKey(ACME.organization_id, "live"))
        await world.notifier.take_events([*others, live, wanted])
        received = await receiver.next()
        assert received.webhook_id == wanted.id
        assert received.body == wanted.body
        assert received.verified_by(secret)
        await lines.until(f"{wanted.id}  200")
    assert receiver.requests.empty()


async def test_a_receiver_that_fails_or_is_away_does_not_end_listening(
    address: str, world: World, receiver: Receiver
) -> None:
    receiver.answers = [status(500)]
    async with running(lambda lines: listen(HOME, receiver.url, [], lines)) as lines:
        await lines.until("whsec_")
        for expected in ("500", "200"):
            await world.notifier.take_events([make_event()])
            await lines.until(expected)


async def test_an_event_is_listened_to_once_also_when_transactions_commit_out_of_order(
    world: World,
) -> None:
    """One that began before another, which was seen already, commits after it."""
    stream = Listening(world.database).listen(ACME, [])
    assert str(await anext(stream)).startswith("whsec_")
    late, early = make_event(), make_event()
    async with world.database.transaction() as connection:
        await repository.insert_events(connection, [late])
        await world.notifier.take_events([early])
        first = await asyncio.wait_for(anext(stream), WAIT_S)
    second = await asyncio.wait_for(anext(stream), WAIT_S)
    found = [item.event.id for item in (first, second) if isinstance(item, listening.Listened)]
    assert found == [early.id, late.id]
    await stream.aclose()  # type: ignore[attr-defined]


async def refusal(address: str, key: str) -> str:
    async with open_channel(address) as channel:
        stub = notifier_pb2_grpc.NotifierServiceStub(channel)
        call = stub.ListenEvents(pb.ListenEventsRequest(), metadata=api_key_metadata(key))
        return str(await call.code())


async def test_listening_takes_an_admin_key_of_the_test_mode(address: str, world: World) -> None:
    assert "FAILED_PRECONDITION" in await refusal(address, "live")
    assert "PERMISSION_DENIED" in await refusal(address, "reader")
    assert "UNAUTHENTICATED" in await refusal(address, "unknown")


async def test_listeners_are_bounded(
    address: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "LISTENERS_OF_TENANT_MAX", 1)
    async with running(lambda lines: listen(HOME, "http://127.0.0.1:9", [], lines)) as lines:
        await lines.until("whsec_")
        assert "RESOURCE_EXHAUSTED" in await refusal(address, "admin")


@pytest.mark.parametrize("url", ["", "localhost:3000", "ftp://x", "http://", "http://[x"])
def test_forwarding_needs_a_url(url: str) -> None:
    with pytest.raises(StackError, match="must be a URL"):
        check_url(url)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="USAGEFLOW_NOTIFIER_ADDRESS"):
        find_notifier(tmp_path, {})
    with pytest.raises(StackError, match="USAGEFLOW_API_KEY"):
        find_notifier(tmp_path, {"USAGEFLOW_NOTIFIER_ADDRESS": "127.0.0.1:1"})
