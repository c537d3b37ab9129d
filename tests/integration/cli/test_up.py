"""`usageflow up` with everything real: what it tells, keeps running, keeps, and leaves behind."""

import http.client
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from cli.children import Child
from cli.connection import Connection, read_connection
from cli.home import SERVICES, Home
from cli.plan import PARTS
from cli.ports import free_port
from cli.stack import ROOT, START_S, running_stack, start_stack, wait_for_stack

EVERYTHING = ("postgres", "nats", *PARTS)
WAIT_S = 30
POLL_S = 0.02
RESTART_S_MAX = 2.0
HURRY_S = 10


def track(connection: Connection, key: str, http_url: str = "") -> tuple[int, bool]:
    """Send one event: the status, and whether it was there already."""
    address = urlsplit(http_url or connection.http).netloc
    client = http.client.HTTPConnection(address, timeout=WAIT_S)
    body = json.dumps({"metric": "API_CALL", "amount": 1, "customerId": "user_123"})
    headers = {"x-usageflow-api-key": connection.api_key, "Idempotency-Key": key}
    try:
        client.request("POST", "/api/track", body, {**headers, "Content-Type": "application/json"})
        answer = client.getresponse()
        answer.read()
    finally:
        client.close()
    return answer.status, answer.headers.get("Idempotent-Replayed") == "true"


def track_until_stored(connection: Connection, key: str) -> None:
    """Send one event as a patient client does, for at most WAIT_S seconds."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            status, _ = track(connection, key)
        except OSError as error:
            status, problem = 0, str(error)
        else:
            problem = str(status)
        if status == 200:
            return
        assert time.monotonic() < deadline, problem
        time.sleep(POLL_S)


def processes(connection: Connection) -> list[psutil.Process]:
    """Every process of a running stack, the supervisor too."""
    return [psutil.Process(pid) for pid in (*connection.pids.values(), connection.supervisor_pid)]


def restarted(home: Path, name: str, old_pid: int) -> Connection:
    """The connection as soon as the named process has another pid."""
    deadline = time.monotonic() + RESTART_S_MAX
    while True:
        connection = read_connection(home / "connection.json")
        assert connection is not None
        if connection.pids[name] != old_pid:
            return connection
        assert time.monotonic() < deadline, f"{name} was not restarted"
        time.sleep(POLL_S)


class Past:
    """A home that several stacks use one after another, and what they have acknowledged."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.http_port = free_port()
        self._keys: list[str] = []

    def start(self) -> tuple[Child, Connection]:
        """A running stack and its supervisor."""
        child = start_stack(self.home, http_port=self.http_port)
        return child, wait_for_stack(self.home, child)

    def track(self, count: int) -> None:
        """Send so many new events, each acknowledged."""
        for _ in range(count):
            key = f"kept-{len(self._keys)}"
            assert track(self._connection(), key) == (200, False)
            self._keys.append(key)

    def check(self) -> None:
        """Everything that was ever acknowledged is there."""
        connection = self._connection()
        lost = [key for key in self._keys if track(connection, key) != (200, True)]
        assert lost == []

    def _connection(self) -> Connection:
        connection = read_connection(self.home / "connection.json")
        assert connection is not None
        return connection


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    """What the stacks of the tests that end them have in common."""
    return Past(tmp_path_factory.mktemp("past"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the stack that the tests of this module share."""
    return tmp_path_factory.mktemp("up") / "home"


@pytest.fixture(scope="module")
def stack(home: Path) -> Iterator[Connection]:
    """A running stack."""
    with running_stack(home) as connection:
        yield connection


def test_the_connection_names_everything(home: Path, stack: Connection) -> None:
    """And only its owner may read it."""
    document = json.loads((home / "connection.json").read_text())
    assert set(document["grpc"]) == set(document["databases"]) == set(SERVICES)
    assert set(document["pids"]) == set(EVERYTHING)
    assert document["api_key"].startswith("uf_test_")
    assert stat.S_IMODE((home / "connection.json").stat().st_mode) == 0o600
    assert track(stack, "the-first") == (200, False)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_printed_curl_line_works_when_pasted(home: Path, stack: Connection) -> None:
    """One line, for a shell."""
    line = re.search(r"curl .*", (home / "up.log").read_text())
    assert line is not None
    done = subprocess.run(["sh", "-c", line.group()], capture_output=True, check=True, text=True)
    answer = json.loads(done.stdout)
    assert answer["success"] is True
    assert answer["eventId"].startswith("evt_")
    assert stack.api_key in line.group()


def test_the_printed_link_lets_the_owner_in_once(home: Path, stack: Connection) -> None:
    """Opening it shows a button; the button signs in."""
    line = re.search(r"Sign in +(http\S+)\?token=(\S+)", (home / "up.log").read_text())
    assert line is not None
    url, token = line.groups()
    assert url == f"{stack.http}/sign-in"
    with httpx.Client(trust_env=False, timeout=30) as browser:
        assert browser.get(url, params={"token": token}).status_code == 200
        assert browser.post(url, data={"token": token}).status_code == 303
        assert browser.get(f"{stack.http}/api/sessions/current").json()["member"]["role"] == "OWNER"
        assert browser.post(url, data={"token": token}).status_code == 401


def test_no_secret_is_in_a_command_line_or_a_log(home: Path, stack: Connection) -> None:
    """Both are read by others than the owner, or sent to them."""
    secrets = Home(home).load_secrets()
    hidden = {
        secrets.internal_token,
        secrets.key_pepper,
        secrets.postgres_password,
        secrets.nats_password,
        *secrets.database_passwords.values(),
    }
    shown = [" ".join(process.cmdline()) for process in processes(stack)]
    shown += [log.read_text(errors="replace") for log in (home / "logs").iterdir()]
    found = [secret for secret in hidden for text in shown if secret in text]
    assert found == []


def test_a_second_stack_in_the_same_home_is_refused(home: Path, stack: Connection) -> None:
    """It says who runs there, and ends with 1."""
    second = subprocess.run(
        [sys.executable, "-m", "cli", "up", "--home", home, "--http-port", str(free_port())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    assert f"another `usageflow up` (pid {stack.supervisor_pid})" in second.stdout


def test_a_taken_http_port_is_named_before_anything_starts(
    tmp_path: Path, stack: Connection
) -> None:
    """With the variable that helps."""
    port = urlsplit(stack.http).port
    done = subprocess.run(
        [sys.executable, "-m", "cli", "up", "--home", tmp_path / "other"],
        env={**os.environ, "USAGEFLOW_HTTP_PORT": str(port)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1 is taken" in done.stdout
    assert "USAGEFLOW_HTTP_PORT" in done.stdout
    assert not (tmp_path / "other" / "postgres").exists()


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_killed_process_is_back_within_two_seconds(
    home: Path, stack: Connection, name: str
) -> None:
    """connection.json has its new pid, and events are stored again."""
    before = read_connection(home / "connection.json")
    assert before is not None
    os.kill(before.pids[name], signal.SIGKILL)
    connection = restarted(home, name, before.pids[name])
    others = {part: pid for part, pid in connection.pids.items() if part != name}
    assert others == {part: pid for part, pid in before.pids.items() if part != name}
    track_until_stored(stack, f"after-{name}")


def test_an_orderly_stop_leaves_no_process_and_the_next_start_goes_on(past: Past) -> None:
    """It ends with 0 within 25 s; ports, key and data are the same afterwards."""
    child, first = past.start()
    past.track(1)
    running = processes(first)
    began = time.monotonic()
    child.stop(signal.SIGINT, WAIT_S)
    assert time.monotonic() - began < 25
    assert child.popen.returncode == 0
    assert not [process for process in running if process.is_running()]
    assert read_connection(past.home / "connection.json") is None

    child, again = past.start()
    assert again.api_key == first.api_key
    assert again.grpc == first.grpc
    past.check()
    child.stop(signal.SIGINT, WAIT_S)


def test_a_killed_stack_goes_on_at_once_with_all_that_was_acknowledged(past: Past) -> None:
    """kill -9 of the supervisor takes all its processes along; the next start waits for none."""
    child, first = past.start()
    past.track(100)
    killed = processes(first)
    child.popen.kill()
    child.popen.wait()
    child, _ = past.start()
    assert not [process for process in killed if process.is_running()]
    past.check()

    # A second signal is for those who can't wait for an orderly stop.
    child.popen.send_signal(signal.SIGINT)
    deadline = time.monotonic() + WAIT_S
    while "stopping" not in (past.home / "lock").read_text():
        assert time.monotonic() < deadline
        time.sleep(POLL_S)
    child.stop(signal.SIGINT, HURRY_S)
    assert child.popen.returncode == 0


def test_a_stack_whose_caller_is_killed_stops_and_the_next_waits_for_it(past: Past) -> None:
    """As when `make run` is killed with -9: make's child would run on without it."""
    options = ["--home", str(past.home), "--http-port", str(past.http_port), "--stop-with-parent"]
    code = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'cli', *sys.argv[1:]])"
    caller = subprocess.Popen([sys.executable, "-c", code, "up", *options], cwd=ROOT)
    deadline = time.monotonic() + START_S
    while read_connection(past.home / "connection.json") is None:
        assert time.monotonic() < deadline
        time.sleep(POLL_S)
    past.check()
    caller.kill()
    caller.wait()
    child, connection = past.start()
    past.check()

    running = processes(connection)
    child.popen.kill()
    child.popen.wait()
    _, alive = psutil.wait_procs(running, timeout=WAIT_S)
    assert alive == [], "a killed supervisor takes all along, also when nobody starts another"


@pytest.mark.parametrize("delay_s", [0.5, 2.0])
def test_a_stack_can_be_stopped_while_it_starts(tmp_path: Path, delay_s: float) -> None:
    """At any moment, leaving no process."""
    child = start_stack(tmp_path)
    time.sleep(delay_s)
    started = psutil.Process(child.pid).children(recursive=True)
    child.stop(signal.SIGTERM, WAIT_S)
    assert child.popen.returncode in {0, -signal.SIGTERM}  # before Python listens to signals
    assert not [process for process in started if process.is_running()]
