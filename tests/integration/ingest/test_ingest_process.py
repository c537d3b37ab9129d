"""ingest as the process that `python -m services.ingest` starts, over gRPC."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr
from usageflow.accounts.v1 import accounts_pb2, accounts_pb2_grpc
from usageflow.common.v1 import common_pb2
from usageflow.ingest.v1 import ingest_pb2 as pb
from usageflow.ingest.v1 import ingest_pb2_grpc

from cli.ports import free_port
from services.ingest.domain import Status
from services.kit.auth import Principal, invalid_key
from services.kit.grpc_client import api_key_metadata, open_channel
from services.kit.grpc_server import GrpcServer
from services.kit.keys import make_key
from services.kit.settings import ServiceSettings
from tests.integration.ingest.instance import TOKEN, event
from tests.waiting import until

START_S = 30.0
CALL_S = 20.0
ACCEPTED, DUPLICATE = Status.ACCEPTED, Status.DUPLICATE
SCOPES = {"track": accounts_pb2.SCOPE_TRACK, "read": accounts_pb2.SCOPE_READ}


@dataclass
class Accounts(accounts_pb2_grpc.AccountsInternalServiceServicer):
    """Stands in for accounts: knows the keys it has made."""

    keys: dict[str, accounts_pb2.Principal] = field(default_factory=dict)

    def new_key(self, organization: str, *scopes: str) -> str:
        """A key of an organization, live mode."""
        secret = make_key("live")
        self.keys[secret] = accounts_pb2.Principal(
            key_id=f"key_{len(self.keys):032x}",
            organization_id=f"org_{organization.encode().hex():0>32}",
            mode=common_pb2.MODE_LIVE,
            scopes=[SCOPES[scope] for scope in scopes],
        )
        return secret

    async def ResolveApiKey(self, request: Any, context: Any) -> Any:
        """Who a key stands for."""
        if request.secret not in self.keys:
            raise invalid_key()
        return accounts_pb2.ResolveApiKeyResponse(principal=self.keys[request.secret])

    async def CreateOrganization(self, request: Any, context: Any) -> Any:
        """Organizations come into being with their keys here."""
        raise invalid_key()

    async def IssueApiKey(self, request: Any, context: Any) -> Any:
        """See new_key."""
        raise invalid_key()

    async def SetTestClock(self, request: Any, context: Any) -> Any:
        """Nobody has one here."""
        raise invalid_key()

    async def ListOrganizations(self, request: Any, context: Any) -> Any:
        """Nobody asks here."""
        raise invalid_key()


@dataclass
class Running:
    """A process of ingest and what speaks to it."""

    accounts: Accounts
    environment: dict[str, str]
    log: Path
    channel: grpc.aio.Channel
    process: Process | None = None

    @property
    def public(self) -> Any:
        """IngestService, for callers with a key."""
        return ingest_pb2_grpc.IngestServiceStub(self.channel)

    async def record(self, secret: str, *events: pb.EventInput) -> list[pb.EventReceipt]:
        """RecordEvents."""
        response = await self.public.RecordEvents(
            pb.RecordEventsRequest(events=events), timeout=CALL_S, metadata=api_key_metadata(secret)
        )
        return list(response.receipts)

    async def logged(self, text: str) -> None:
        """Return when the process has written `text` to its log."""
        await until(text, lambda: text in self.log.read_text(), CALL_S)

    async def launch(self, **settings: str) -> None:
        """Start the process, and wait until it serves."""
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "services.ingest",
                env=self.environment | settings,
                stdout=output,
                stderr=output,
            )
        await health_pb2_grpc.HealthStub(self.channel).Check(  # type: ignore[attr-defined]
            health_pb2.HealthCheckRequest(service="usageflow.ingest.v1.IngestService"),
            timeout=START_S,
            wait_for_ready=True,
        )

    async def kill(self) -> None:
        """kill -9, unless it has ended by itself; returns when the channel has heard of it."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        async with asyncio.timeout(CALL_S):
            while (state := self.channel.get_state()) is grpc.ChannelConnectivity.READY:
                await self.channel.wait_for_state_change(state)


class NoKeys:
    """The KeyResolver of a server that is for internal calls only."""

    async def resolve(self, secret: str) -> Principal:
        """No key is good."""
        raise invalid_key()


@asynccontextmanager
async def serving_accounts(nats_url: str) -> AsyncIterator[tuple[Accounts, int]]:
    settings = ServiceSettings(
        database_url=SecretStr("postgresql://unused"),
        nats_url=SecretStr(nats_url),
        internal_token=SecretStr(TOKEN),
        shutdown_s=2,
    )
    accounts = Accounts()
    server = GrpcServer(settings, NoKeys())
    server.add(
        accounts_pb2_grpc.add_AccountsInternalServiceServicer_to_server,
        accounts,
        "usageflow.accounts.v1.AccountsInternalService",
    )
    await server.start()
    yield accounts, server.port
    await server.stop()


@pytest.fixture
async def ingest(database_url: str, nats_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    """A running process of ingest."""
    port = free_port()
    async with serving_accounts(nats_url) as (accounts, accounts_port):
        environment = {
            "PATH": os.environ["PATH"],
            "USAGEFLOW_DATABASE_URL": database_url,
            "USAGEFLOW_NATS_URL": nats_url,
            "USAGEFLOW_GRPC_LISTEN": f"127.0.0.1:{port}",
            "USAGEFLOW_ACCOUNTS_ADDRESS": f"127.0.0.1:{accounts_port}",
            "USAGEFLOW_INTERNAL_TOKEN": TOKEN,
            "USAGEFLOW_LOG_LEVEL": "debug",
        }
        async with open_channel(f"127.0.0.1:{port}") as channel:
            running = Running(accounts, environment, tmp_path / "log", channel)
            await running.launch()
            yield running
            await running.kill()


def statuses(receipts: list[pb.EventReceipt]) -> list[Status]:
    return [Status(receipt.status) for receipt in receipts]


async def test_it_starts_stores_stops_in_time_and_writes_no_secret(ingest: Running) -> None:
    key = ingest.accounts.new_key("acme", "track")
    assert statuses(await ingest.record(key, event("k"))) == [ACCEPTED]
    assert ingest.process is not None
    ingest.process.send_signal(signal.SIGTERM)
    try:
        assert await asyncio.wait_for(ingest.process.wait(), CALL_S) == 0
    except TimeoutError:
        pytest.fail(ingest.log.read_text())
    log = ingest.log.read_text()
    assert "stopped" in log
    for private in (key[12:], TOKEN, ingest.environment["USAGEFLOW_DATABASE_URL"]):
        assert private not in log


async def test_killed_between_commit_and_answer_a_retry_finds_one_event(ingest: Running) -> None:
    key = ingest.accounts.new_key("acme", "track", "read")
    assert statuses(await ingest.record(key, event("before"))) == [ACCEPTED]
    await ingest.kill()
    await ingest.launch(USAGEFLOW_TEST_PAUSE_AFTER_COMMIT_S="60")
    call = asyncio.create_task(ingest.record(key, event("k")))
    await ingest.logged("test_pause_after_commit")
    await ingest.kill()
    with pytest.raises(grpc.aio.AioRpcError) as lost:
        await call
    assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
    await ingest.launch(USAGEFLOW_TEST_PAUSE_AFTER_COMMIT_S="0")
    receipts = await ingest.record(key, event("k"), event("before"))
    assert statuses(receipts) == [DUPLICATE, DUPLICATE]
    listed = await ingest.public.ListEvents(
        pb.ListEventsRequest(), timeout=CALL_S, metadata=api_key_metadata(key)
    )
    assert len(listed.events) == 2
