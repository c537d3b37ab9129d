"""The embedded NATS server: who gets in, what survives, what it leaves behind."""

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nats
import psutil
import pytest
from nats.aio.client import Client

from cli.embedded import EmbeddedNats
from cli.home import new_secret
from cli.ports import free_port

DEATH_WAIT_S = 15


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedNats]:
    """A server of the test's own, stopped afterwards."""
    server = EmbeddedNats(tmp_path / "nats", free_port(), new_secret(), tmp_path / "log")
    yield server
    server.stop()


async def started(server: EmbeddedNats) -> EmbeddedNats:
    """The server, answering."""
    server.prepare()
    server.start()
    await server.ready()
    return server


def pid_of(server: EmbeddedNats) -> int:
    """Process id of the running server."""
    assert server.child is not None
    return server.child.pid


async def connect(url: str) -> Client:
    """A connection, refused at once or never."""
    return await nats.connect(url, allow_reconnect=False, max_reconnect_attempts=0)


async def test_nobody_gets_in_without_the_password(nats_server: EmbeddedNats) -> None:
    """A wrong one, or none."""
    wrong = nats_server.url.replace(nats_server.password, "wrong")
    for url in (wrong, f"nats://127.0.0.1:{nats_server.port}"):
        with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
            await connect(url)


async def test_the_password_is_in_a_private_file_only(nats_server: EmbeddedNats) -> None:
    """Not in the command line, which everybody can read."""
    assert stat.S_IMODE(nats_server.config.stat().st_mode) == 0o600
    assert nats_server.password in nats_server.config.read_text()
    assert nats_server.password not in " ".join(psutil.Process(pid_of(nats_server)).cmdline())


async def test_it_listens_on_this_machine_only(nats_server: EmbeddedNats) -> None:
    """127.0.0.1, and one port."""
    listening = [
        each.laddr
        for each in psutil.Process(pid_of(nats_server)).net_connections()
        if each.status == psutil.CONN_LISTEN
    ]
    assert listening == [("127.0.0.1", nats_server.port)]


async def test_messages_survive_a_restart(server: EmbeddedNats) -> None:
    """JetStream keeps them in files."""
    await started(server)
    connection = await connect(server.url)
    jetstream = connection.jetstream()
    await jetstream.add_stream(name="S", subjects=["s"])
    await jetstream.publish("s", b"kept")
    await connection.close()
    server.stop()
    await started(server)
    connection = await connect(server.url)
    message = await connection.jetstream().get_msg("S", 1)
    await connection.close()
    assert message.data == b"kept"


async def test_a_server_left_behind_is_stopped_first(server: EmbeddedNats) -> None:
    """Two servers on one store would ruin it."""
    await started(server)
    left_behind = psutil.Process(pid_of(server))
    again = EmbeddedNats(server.directory, server.port, server.password, server.log)
    try:
        await started(again)  # on the same port, which the other has left
        assert pid_of(again) != left_behind.pid
        assert not left_behind.is_running() or left_behind.status() == psutil.STATUS_ZOMBIE
    finally:
        again.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has the signal for it")
def test_it_dies_with_a_supervisor_that_is_killed(server: EmbeddedNats) -> None:
    """Even when that one is killed with -9 and can't stop it."""
    server.prepare()
    code = (
        "import sys, pathlib, signal; from cli.embedded import EmbeddedNats as E;"
        "s = E(pathlib.Path(sys.argv[1]), int(sys.argv[2]), 'x', pathlib.Path(sys.argv[3]));"
        "print(s.start().pid, flush=True); signal.pause()"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", code, server.directory, str(server.port), server.log],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert supervisor.stdout is not None
    process = psutil.Process(int(supervisor.stdout.readline()))
    supervisor.kill()
    supervisor.wait()
    process.wait(DEATH_WAIT_S)
    assert not process.is_running()
