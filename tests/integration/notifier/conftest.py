"""notifier on a real database, with a real HTTP receiver."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook as Verifier

from cli.embedded import EmbeddedPostgres
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.ids import new_id
from services.notifier.deliveries import Deliveries
from services.notifier.domain import (
    Delivery,
    DeliveryFilter,
    Endpoint,
    NewEndpoint,
    WebhookEvent,
    webhook_body,
)
from services.notifier.health import Health
from services.notifier.queue_repository import Outcome
from services.notifier.recorder import Recorder
from services.notifier.sealing import Sealer
from services.notifier.sender import Sender
from services.notifier.service import Notifier
from services.notifier.settings import NotifierSettings
from services.notifier.worker import Worker
from tests.conftest import migrated_database

WAIT_S = 10.0
ACME = TenantKey("org_" + "a" * 32, "test")

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Received:
    """A webhook as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def webhook_id(self) -> str:
        return self.headers["webhook-id"]

    def verified_by(self, secret: str) -> dict[str, object]:
        """The body's JSON; raises unless the signature is that of `secret`."""
        verified: dict[str, object] = Verifier(secret).verify(self.body, self.headers)
        return verified


@dataclass
class Receiver:
    """An HTTP server that keeps what it gets and answers as told, 200 otherwise."""

    url: str = ""
    requests: asyncio.Queue[Received] = field(default_factory=asyncio.Queue)
    answers: list[Answer] = field(default_factory=list)
    always: Answer | None = None

    async def next(self) -> Received:
        """The next webhook."""
        return await asyncio.wait_for(self.requests.get(), WAIT_S)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        received = Received(request.path, headers, await request.read())
        self.requests.put_nowait(received)
        if self.answers:
            return await self.answers.pop(0)(request)
        return await self.always(request) if self.always else web.Response(text="thanks")


def status(number: int, text: str = "") -> Answer:
    """An answer with this status."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=number, text=text)

    return answer


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A running receiver."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiver.url = f"http://{host}:{port}/hooks"
    yield receiver
    await runner.cleanup()


class KnownRecorder(Recorder):
    """A recorder that tells the test what was committed."""

    def __init__(self, database: Database, health: Health) -> None:
        super().__init__(database, health)
        self.committed: asyncio.Queue[Outcome] = asyncio.Queue()

    def record(self, outcome: Outcome, written: Callable[[], None]) -> None:
        def tell() -> None:
            written()
            self.committed.put_nowait(outcome)

        super().record(outcome, tell)

    async def next(self) -> Outcome:
        """The next outcome, once it is committed."""
        return await asyncio.wait_for(self.committed.get(), WAIT_S)


class World:
    """One notifier process's parts, without its edges (NATS and gRPC)."""

    def __init__(
        self, database: Database, settings: NotifierSettings, sender: Sender | None = None
    ) -> None:
        self.database = database
        self.settings = settings
        self.sealer = Sealer(settings.secrets_keys)
        self.sender = sender or Sender(
            allow_private=settings.webhook_allow_private, timeout_s=settings.webhook_timeout_s
        )
        self.due = asyncio.Event()
        self.recorder = KnownRecorder(database, Health(database, self.due.set))
        self.worker = Worker(database, self.sealer, self.sender, self.recorder, settings, self.due)
        self.deliveries = Deliveries(database, due=self.due.set)
        self.notifier = Notifier(
            database,
            self.sealer,
            allow_private=settings.webhook_allow_private,
            first_delay_s=settings.webhook_retry_delays_s[0],
            due=self.due.set,
        )

    @asynccontextmanager
    async def working(self) -> AsyncIterator["World"]:
        """With the worker running."""
        recorder = asyncio.create_task(self.recorder.run())
        worker = asyncio.create_task(self.worker.run())
        yield self
        for task in (worker, recorder):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self.sender.close()

    async def endpoint(
        self, url: str, *event_types: str, tenant: TenantKey = ACME, **more: Any
    ) -> tuple[Endpoint, str]:
        """Register an endpoint; `more` as in NewEndpoint."""
        new = NewEndpoint(url, event_types, **more)
        return await self.notifier.create_endpoint(tenant, new)

    async def listed(
        self, endpoint_id: str, status: str | None = None, limit: int = 0, token: str = ""
    ) -> tuple[list[Delivery], str]:
        """A page of Acme's deliveries to an endpoint."""
        wanted = DeliveryFilter(endpoint_id=endpoint_id, status=status)
        return await self.deliveries.list(ACME, wanted, limit, token)


def make_event(
    event_type: str = "invoice.created", tenant: TenantKey = ACME, event_id: str = ""
) -> WebhookEvent:
    """A billing event."""
    now = clock.now()
    body = webhook_body(event_type, now, '{"invoiceId":"inv_1","amount":"120.00"}')
    return WebhookEvent(event_id or new_id("whevt"), tenant, event_type, now, body)


def make_settings(database_url: str, **changes: object) -> NotifierSettings:
    """Settings of a test: private addresses, quick retries, polling by the second."""
    values: dict[str, object] = {
        "database_url": database_url,
        "nats_url": "nats://127.0.0.1:1",
        "internal_token": "t" * 32,
        "webhook_secrets_key": "s" * 32,
        "webhook_allow_private": True,
        "webhook_retry_delays_s": "0,0.05,0.05",
        "webhook_timeout_s": 5,
        "webhook_lease_s": 10,
        "webhook_poll_s": 0.05,
        **changes,
    }
    return NotifierSettings.model_validate(values)


@pytest.fixture
async def database_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of notifier's migrated, empty database."""
    async with migrated_database(postgres, "services.notifier") as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The migrated database of notifier."""
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
def settings(database_url: str) -> NotifierSettings:
    """The usual settings."""
    return make_settings(database_url)


@pytest.fixture
async def world(database: Database, settings: NotifierSettings) -> AsyncIterator[World]:
    """notifier, with its worker running."""
    async with World(database, settings).working() as world:
        yield world


Worlds = Callable[..., Awaitable[World]]


@pytest.fixture
async def make_world(database: Database, database_url: str) -> AsyncIterator[Worlds]:
    """Makes running notifiers with other settings, on the same database."""
    async with AsyncExitStack() as stack:

        async def make(**changes: object) -> World:
            world = World(database, make_settings(database_url, **changes))
            return await stack.enter_async_context(world.working())

        yield make
