"""The directory of a stack's state."""

import stat
import threading
from pathlib import Path

import pytest

from cli.connection import Connection, read_connection, write_connection
from cli.errors import StackError
from cli.home import Home, Lock


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def nothing() -> None:
    """What to do before waiting for the lock."""


def connection() -> Connection:
    """A connection of a stack that is nowhere."""
    return Connection(
        http="http://127.0.0.1:8080",
        grpc={"ingest": "127.0.0.1:20001"},
        nats="nats://u:p@127.0.0.1:4222",
        databases={"ingest": "postgresql://u:p@127.0.0.1:5432/ingest"},
        api_key="uf_test_x",
        pids={"ingest": 7},
        supervisor_pid=1,
    )


def test_only_the_owner_can_enter_the_home(tmp_path: Path) -> None:
    """Secrets, data and logs are below it."""
    home = Home(tmp_path / "home")
    with home.locked(nothing):
        assert mode(home.path) == 0o700
        assert mode(home.logs) == 0o700


def test_only_the_owner_can_read_the_secrets(tmp_path: Path) -> None:
    """secrets.json and connection.json have mode 0600."""
    home = Home(tmp_path)
    home.load_secrets()
    write_connection(home.connection, connection())
    assert mode(tmp_path / "secrets.json") == 0o600
    assert mode(home.connection) == 0o600


def test_secrets_are_made_once(tmp_path: Path) -> None:
    """The next run finds the same ones, and the first organization's key."""
    secrets = Home(tmp_path).load_secrets()
    secrets.api_key = "uf_test_x"
    Home(tmp_path).save_secrets(secrets)
    assert Home(tmp_path).load_secrets() == secrets


def test_secrets_differ_from_home_to_home(tmp_path: Path) -> None:
    """And from one another, at 64 characters each."""
    made = [Home(tmp_path / name).path for name in "ab"]
    for path in made:
        path.mkdir()
    one, other = (Home(path).load_secrets() for path in made)
    tokens = {one.internal_token, one.key_pepper, one.postgres_password, other.internal_token}
    assert len(tokens) == 4
    assert {len(token) for token in tokens} == {64}


def test_secrets_that_are_not_ours_are_refused_and_kept(tmp_path: Path) -> None:
    """Making new ones in their place would make every key and password useless."""
    path = tmp_path / "secrets.json"
    path.write_text("{")
    with pytest.raises(StackError, match=r"secrets\.json is not what UsageFlow wrote"):
        Home(tmp_path).load_secrets()
    assert path.read_text() == "{"


def test_a_file_that_can_be_made_again_may_be_torn(tmp_path: Path) -> None:
    """As connection.json after a power loss."""
    path = tmp_path / "connection.json"
    path.write_text('{"http": "http')
    assert read_connection(path) is None


def test_a_second_stack_in_the_same_home_is_refused(tmp_path: Path) -> None:
    """The message names who runs there, and the variable that helps."""
    with (
        Home(tmp_path).locked(nothing),
        pytest.raises(StackError, match=r"another .*pid \d+.*USAGEFLOW_HOME"),
        Home(tmp_path).locked(nothing),
    ):
        pass


def test_the_home_is_free_when_the_stack_has_ended(tmp_path: Path) -> None:
    """The lock goes with the process, or earlier."""
    with Home(tmp_path).locked(nothing):
        pass
    with Home(tmp_path).locked(nothing) as lock:
        assert isinstance(lock, Lock)


def test_a_stack_that_is_stopping_is_waited_for(tmp_path: Path) -> None:
    """Stop and start again needs no waiting by hand."""
    waits = threading.Event()
    taken = threading.Event()

    def start_again() -> None:
        with Home(tmp_path).locked(waits.set):
            taken.set()

    with Home(tmp_path).locked(nothing) as lock:
        lock.stopping()
        again = threading.Thread(target=start_again)
        again.start()
        assert waits.wait(5)
        assert not taken.is_set()
    again.join(5)
    assert taken.is_set()


def test_a_connection_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Scripts rely on the file; there is none while nothing runs."""
    path = tmp_path / "connection.json"
    assert read_connection(path) is None
    write_connection(path, connection())
    assert read_connection(path) == connection()
    assert [entry.name for entry in tmp_path.iterdir()] == ["connection.json"]
