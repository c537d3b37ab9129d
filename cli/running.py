"""A stack from its start to its end: servers, databases, services, gateway, first key."""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from typing import Any

from cli.bootstrap import ensure_first_key, sign_in_path
from cli.children import spawn
from cli.connection import Connection, write_connection
from cli.errors import PortTakenError
from cli.files import write_json
from cli.home import SERVICES, Home, Secrets
from cli.leftovers import stop_leftover_services
from cli.plan import (
    GATEWAY,
    LOCALHOST,
    SHUTDOWN_S,
    Process,
    Surroundings,
    command,
    parse_replicas,
    process_names,
)
from cli.ports import Ports, is_free
from cli.probes import grpc_ready, http_ready
from cli.servers import Servers, plan_servers
from cli.supervisor import STARTED, Keeper, Part

# The parts stop by themselves within SHUTDOWN_S; a little more until they are killed.
PART_STOP_S = SHUTDOWN_S + 0.5


class Stack:
    """Everything that `usageflow up` runs. Make it under Home.locked(); start() once, stop() once.

    `report` gets lines for people: a part's name and what happened to it.
    """

    def __init__(
        self,
        home: Home,
        http_port: int,
        report: Callable[[str, str], None],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._home = home
        self._http_port = http_port
        self._report = report
        self._environ = environ
        self._replicas = parse_replicas(environ.get("USAGEFLOW_REPLICAS", ""))
        self._servers: list[Keeper] = []
        self._services: list[Keeper] = []
        self._gateways: list[Keeper] = []
        self._connection: Connection | None = None
        self._sign_in_path = ""
        # Every service holds the reading end: its end of file tells them that we died.
        self._pipe_read, self._pipe_write = os.pipe()

    async def start(self) -> Connection:
        """Start everything, in parallel where possible, and write connection.json."""
        self._home.connection.unlink(missing_ok=True)
        await asyncio.to_thread(stop_leftover_services, self._home)
        if not is_free(self._http_port):
            raise PortTakenError(
                f"port {self._http_port} on {LOCALHOST} is taken: stop what listens there, or"
                " choose another with USAGEFLOW_HTTP_PORT (or --http-port)"
            )
        secrets = self._home.load_secrets()
        ports = Ports(self._home.ports)
        servers = plan_servers(self._home, ports, secrets, self._environ)
        processes = self._plan(ports)
        self._servers = [self._keeper(part) for part in servers.parts]
        await self._ready(self._servers)
        urls = await self._make_databases(servers, secrets)
        surroundings = Surroundings(
            home=str(self._home.path),
            nats_url=servers.nats_url,
            database_urls=urls,
            internal_token=secrets.internal_token,
            key_pepper=secrets.key_pepper,
            webhook_secrets_key=secrets.webhook_secrets_key,
            payment_secrets_key=secrets.payment_secrets_key,
            parent_pipe_fd=self._pipe_read,
        )
        await self._start_processes(processes, surroundings, secrets)
        return self._connect(processes, surroundings, secrets)

    @property
    def sign_in_url(self) -> str:
        """Signs the owner in, once; to be asked for after start()."""
        assert self._connection is not None
        return self._connection.http + self._sign_in_path

    async def stop(self) -> None:
        """Stop the gateway, then the services, then the servers: data stays."""
        self._connection = None
        self._home.connection.unlink(missing_ok=True)
        for keepers in (self._gateways, self._services, self._servers):
            await asyncio.gather(*(keeper.stop() for keeper in keepers))
        self._home.pids.unlink(missing_ok=True)
        os.close(self._pipe_write)
        os.close(self._pipe_read)

    def kill(self) -> None:
        """Stop everything at once: for those who can't wait for stop(). Data stays too."""
        for keeper in (*self._gateways, *self._services, *self._servers):
            keeper.kill()

    def _plan(self, ports: Ports) -> list[Process]:
        return [
            Process(name, part, self._http_port if name == GATEWAY else ports.claim(name))
            for name, part in process_names(self._replicas)
        ]

    async def _make_databases(self, servers: Servers, secrets: Secrets) -> dict[str, str]:
        started = time.monotonic()
        urls = await servers.make_databases(secrets)
        self._report("databases", f"ready in {time.monotonic() - started:.1f} s")
        return urls

    async def _start_processes(
        self, processes: list[Process], surroundings: Surroundings, secrets: Secrets
    ) -> None:
        for process in processes:
            keeper = self._keeper(self._part(process, processes, surroundings))
            (self._gateways if process.part == GATEWAY else self._services).append(keeper)
        accounts = self._services[0]
        await together(
            [
                self._ready(self._gateways + self._services),
                self._first_key(accounts, processes[0].address, secrets),
            ]
        )

    async def _first_key(self, accounts: Keeper, address: str, secrets: Secrets) -> None:
        await accounts.ready()
        await ensure_first_key(address, self._home, secrets)
        owner_email = self._environ.get("USAGEFLOW_OWNER_EMAIL", "")
        self._sign_in_path = await sign_in_path(
            address, secrets.internal_token, secrets.organization_id, owner_email=owner_email
        )

    def _part(self, process: Process, processes: list[Process], surroundings: Surroundings) -> Part:
        what = command(process, processes, surroundings, self._environ)
        log = self._home.logs / f"{process.name}.log"
        probe = http_ready if process.part == GATEWAY else grpc_ready
        return Part(
            name=process.name,
            start=lambda: spawn(process.name, what, log),
            ready=lambda: probe(process.address),
            stop_s=PART_STOP_S,
        )

    def _keeper(self, part: Part) -> Keeper:
        keeper = Keeper(part, self._changed)
        keeper.begin()
        return keeper

    async def _ready(self, keepers: Iterable[Keeper]) -> None:
        await together(self._ready_one(keeper, time.monotonic()) for keeper in keepers)

    async def _ready_one(self, keeper: Keeper, started: float) -> None:
        await keeper.ready()
        self._report(keeper.part.name, f"ready in {time.monotonic() - started:.1f} s")

    def _connect(
        self, processes: list[Process], surroundings: Surroundings, secrets: Secrets
    ) -> Connection:
        by_name = {process.name: process for process in processes}
        gateways = [f"http://{each.address}" for each in processes if each.part == GATEWAY]
        self._connection = Connection(
            http=gateways[0],
            grpc={service: by_name[service].address for service in SERVICES},
            nats=surroundings.nats_url,
            databases=dict(surroundings.database_urls),
            api_key=secrets.api_key,
            pids={},
            supervisor_pid=os.getpid(),
            http_replicas=gateways[1:],
        )
        self._write_pids()
        return self._connection

    def _changed(self, keeper: Keeper, what: str) -> None:
        """A process was started, or ended although nobody wanted it to."""
        if keeper.deaths:
            self._report(keeper.part.name, "started again" if what == STARTED else what)
        try:
            self._write_pids()
        except OSError as error:  # a full disk must not end the keeping
            self._report("pids", f"could not be written: {error}")

    def _write_pids(self) -> None:
        """Tell the pids; of a process that is being restarted the last one."""
        keepers = (*self._servers, *self._services, *self._gateways)
        pids = {keeper.part.name: keeper.child.pid for keeper in keepers if keeper.child}
        write_json(self._home.pids, pids)
        if self._connection is not None:
            self._connection = replace(self._connection, pids=pids)
            write_connection(self._home.connection, self._connection)


async def together(waits: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all at once; the first error cancels the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for wait in waits:
                group.create_task(wait)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
