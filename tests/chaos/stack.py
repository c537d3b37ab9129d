"""The stack under test: real processes, with a proxy on every way that a test can cut.

`usageflow up` runs the services and restarts them; PostgreSQL and NATS are kept by the very code
that `up` keeps its own with, but here, so that a proxy stands between them and the services.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from cli.children import Child, log_tail
from cli.connection import Connection, read_connection
from cli.embedded import EmbeddedNats, EmbeddedPostgres
from cli.files import private_directory, read_json
from cli.home import new_secret
from cli.ports import free_port
from cli.servers import nats_part, postgres_part
from cli.stack import STOP_S, start_stack, wait_for_stack
from cli.supervisor import Keeper, Part
from tests.integration.ingest.proxy import Proxy, proxied

LIVE_S_MAX = 20.0
POLL_S = 0.05
INGESTS = ("ingest", "ingest-2")
ENVIRON = {
    "USAGEFLOW_REPLICAS": "ingest=2,aggregator=2",
    # So small that a campaign goes through many.
    "USAGEFLOW_SEGMENT_EVENTS_MAX": "2000",
    # It would repair what a campaign is to find.
    "USAGEFLOW_RECONCILE": "false",
}


@dataclass
class Nats:
    """NATS, and whether its store is to be deleted before it is started again."""

    server: EmbeddedNats
    wipe: bool = False

    def part(self) -> Part:
        """What to keep running."""
        return replace(nats_part(self.server), prepare=self._prepare)

    def _prepare(self) -> None:
        self.server.prepare()
        if self.wipe:
            self.wipe = False
            shutil.rmtree(self.server.directory / "jetstream", ignore_errors=True)


@dataclass
class ChaosStack:
    """A running stack and everything that can be done to it."""

    home: Path
    supervisor: Child
    keepers: Mapping[str, Keeper]
    proxies: Mapping[str, Proxy]
    nats: Nats
    http: str  # through a proxy
    grpc_ingest: str  # all replicas, through proxies

    @property
    def connection(self) -> Connection:
        """As connection.json has it now."""
        connection = read_connection(self.home / "connection.json")
        ended = self.supervisor.popen.poll()
        assert connection is not None, f"up ended ({ended}): {log_tail(self.supervisor.log)}"
        return connection

    async def live(self, name: str) -> psutil.Process | None:
        """The process of this name; None when nobody has started it for LIVE_S_MAX."""
        deadline_s = asyncio.get_running_loop().time() + LIVE_S_MAX
        while asyncio.get_running_loop().time() < deadline_s:
            if (process := self._process(name)) is not None:
                return process
            await asyncio.sleep(POLL_S)
        return None

    def _process(self, name: str) -> psutil.Process | None:
        keeper = self.keepers.get(name)
        pid = keeper.pid if keeper else self.connection.pids.get(name)
        if pid is None:
            return None
        try:
            process = psutil.Process(pid)
            # The pid of one that has ended may be a stranger's by now.
            ours = keeper is not None or process.ppid() == self.supervisor.pid
            alive = process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if ours and alive else None


@asynccontextmanager
async def chaos_stack(home: Path, environ: Mapping[str, str]) -> AsyncIterator[ChaosStack]:
    """Start everything; stop everything at the end, orderly."""
    private_directory(home)
    async with AsyncExitStack() as stack:
        postgres, nats = _servers(home)
        keepers = {"postgres": Keeper(postgres_part(postgres), _ignore)}
        keepers["nats"] = Keeper(nats.part(), _ignore)
        for keeper in keepers.values():
            stack.push_async_callback(keeper.stop)
            keeper.begin()
        await asyncio.gather(*(keeper.ready() for keeper in keepers.values()))
        proxies: dict[str, Proxy] = {}
        proxies["postgres"], postgres_url = await stack.enter_async_context(proxied(postgres.url()))
        proxies["nats"], nats_url = await stack.enter_async_context(proxied(nats.server.url))
        urls = {"USAGEFLOW_POSTGRES_URL": postgres_url, "USAGEFLOW_NATS_URL": nats_url}
        up_home = home / "stack"
        supervisor = start_stack(up_home, environ={**ENVIRON, **environ, **urls})
        stack.push_async_callback(asyncio.to_thread, supervisor.stop, 2, STOP_S)
        connection = await asyncio.to_thread(wait_for_stack, up_home, supervisor)
        proxies["gateway"], http = await stack.enter_async_context(proxied(connection.http))
        ports = read_json(up_home / "ports.json")
        ingests = []
        for name in INGESTS:
            address = f"//127.0.0.1:{ports[name]}"
            proxies[name], url = await stack.enter_async_context(proxied(address))
            ingests.append(urlsplit(url).netloc)
        yield ChaosStack(
            up_home, supervisor, keepers, proxies, nats, http, f"ipv4:{','.join(ingests)}"
        )


def _servers(home: Path) -> tuple[EmbeddedPostgres, Nats]:
    postgres = EmbeddedPostgres(home / "postgres", free_port(), new_secret(), home / "postgres.log")
    nats = EmbeddedNats(home / "nats", free_port(), new_secret(), home / "nats.log")
    return postgres, Nats(nats)


def _ignore(_keeper: Keeper, _what: str) -> None:
    """A server was started, or ended: as intended."""
