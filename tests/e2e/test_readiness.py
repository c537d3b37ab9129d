"""PostgreSQL and NATS go away, or hang, under a whole stack: who says that it is ready, and when.

A service that is not ready is neither stopped nor started anew, and is ready again by itself.
"""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import httpx
import psutil
import pytest

from cli.connection import Connection, read_connection
from cli.embedded import EmbeddedNats, EmbeddedPostgres
from cli.errors import NotReadyError
from cli.home import SERVICES, new_secret
from cli.ports import free_port
from cli.probes import LIVE, grpc_serving
from cli.stack import running_stack
from tests.e2e.api import Api, new_key, wait_for

TELL_S_MAX = 20

Server: TypeAlias = EmbeddedPostgres | EmbeddedNats
Away: TypeAlias = Callable[[Server], AbstractContextManager[None]]


@dataclass
class World:
    """A stack on servers of our own."""

    home: Path
    connection: Connection
    postgres: EmbeddedPostgres
    nats: EmbeddedNats

    def serving(self, name: str = "") -> list[str]:
        """The services whose health says SERVING for `name`."""
        return [service for service in SERVICES if serves(self.connection.grpc[service], name)]

    def status(self, path: str) -> int:
        return httpx.get(self.connection.http + path, trust_env=False).status_code

    def missing(self) -> list[str]:
        """Whom /readyz names."""
        answer = httpx.get(f"{self.connection.http}/readyz", trust_env=False)
        return list(answer.json().get("missing", []))

    def health_exit_codes(self) -> tuple[int, int]:
        """Those of `usageflow health` and `usageflow health --ready`, asked about ingest."""
        environ = {"USAGEFLOW_GRPC_LISTEN": self.connection.grpc["ingest"]}
        command = [sys.executable, "-m", "cli", "health"]
        plain, ready = (
            subprocess.run(argv, env=environ, capture_output=True, check=False).returncode
            for argv in (command, [*command, "--ready"])
        )
        return plain, ready

    def is_ready(self) -> bool:
        return self.serving() == list(SERVICES) and self.missing() == []

    def pids(self) -> dict[str, int]:
        connection = read_connection(self.home / "connection.json")
        assert connection is not None
        return dict(connection.pids)


def serves(address: str, name: str) -> bool:
    try:
        asyncio.run(grpc_serving(address, name))
    except NotReadyError:
        return False
    return True


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Stopped servers are started again by the test that stopped them."""
    home = tmp_path_factory.mktemp("readiness")
    postgres = EmbeddedPostgres(home / "postgres", free_port(), new_secret(), home / "postgres.log")
    nats = EmbeddedNats(home / "nats", free_port(), new_secret(), home / "nats.log")
    try:
        start(postgres)
        start(nats)
        environ = {"USAGEFLOW_POSTGRES_URL": postgres.url(), "USAGEFLOW_NATS_URL": nats.url}
        with running_stack(home / "stack", environ=environ) as connection:
            yield World(home / "stack", connection, postgres, nats)
    finally:
        nats.stop()
        postgres.stop()


def start(server: Server) -> None:
    server.prepare()
    server.start()
    asyncio.run(server.ready())


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """The server is really gone meanwhile."""
    server.stop()
    yield
    start(server)


@contextmanager
def hanging(server: Server) -> Iterator[None]:
    """All its processes stand still meanwhile: it takes connections and never answers."""
    assert server.child is not None
    main = psutil.Process(server.child.pid)
    processes = [main, *main.children(recursive=True)]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    yield
    for process in processes:
        process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("away", [stopped, hanging])
def test_while_postgresql_is_away_nobody_is_ready_and_everybody_lives(
    world: World, away: Away
) -> None:
    wait_for("a ready stack", world.is_ready, TELL_S_MAX)
    pids = world.pids()
    with away(world.postgres):
        wait_for("every service to tell", lambda: world.serving() == [], TELL_S_MAX)
        wait_for("the gateway to tell", lambda: world.status("/readyz") == 503, TELL_S_MAX)
        assert world.missing() == ["accounts", "ingest"]
        assert world.status("/healthz") == 200
        assert world.serving(LIVE) == list(SERVICES)
        assert world.health_exit_codes() == (0, 1)
    wait_for("a ready stack", world.is_ready, TELL_S_MAX)
    assert world.pids() == pids, "nobody was started anew"
    assert Api(world.connection.http, world.connection.api_key).track(new_key()).is_success


@pytest.mark.parametrize("away", [stopped, hanging])
def test_while_nats_is_away_everybody_is_ready_and_events_are_acknowledged(
    world: World, away: Away
) -> None:
    wait_for("a ready stack", world.is_ready, TELL_S_MAX)
    api = Api(world.connection.http, world.connection.api_key)
    with away(world.nats):
        for _ in range(20):
            assert api.track(new_key()).status_code == 200
            assert world.is_ready()
    assert world.health_exit_codes() == (0, 0)
