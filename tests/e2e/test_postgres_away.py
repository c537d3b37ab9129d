"""PostgreSQL stops or dies: callers are told soon, nothing acknowledged is lost, all recovers."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from cli.connection import Connection
from cli.stack import running_stack
from tests.e2e.api import Api, new_key, new_organization, wait_for
from tests.e2e.homes import copy_home

RECOVERY_S = 60.0
# The gateway's longest call to ingest is 5 s; a busy machine may be slow besides.
FIRST_ANSWER_S_MAX = 9.0
OUTAGE_REQUESTS = 10


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a stack whose PostgreSQL is stopped."""
    return tmp_path_factory.mktemp("postgres_away")


@pytest.fixture(scope="module")
def own_stack(home: Path, prepared_home: Path) -> Iterator[Connection]:
    """That stack."""
    with running_stack(copy_home(prepared_home, home)) as connection:
        yield connection


@pytest.fixture
def api(home: Path, own_stack: Connection) -> Api:
    """An organization of its own."""
    return Api(own_stack.http, new_organization(home, own_stack.grpc["accounts"]))


def processes_of(postmaster: int) -> list[int]:
    """PostgreSQL's processes: the first one and one for each connection and task."""
    found = [postmaster]
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name is in brackets and may hold anything; state and parent follow.
            _name, _, rest = entry.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(rest.split()[1]) == postmaster:
            found.append(int(entry.parent.name))
    return found


@contextmanager
def stopped(postmaster: int) -> Iterator[None]:
    """All of PostgreSQL stands still: connections stay open, nothing answers."""
    processes = processes_of(postmaster)
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def track(api: Api, key: str) -> tuple[httpx.Response, float]:
    """The answer and the seconds that it took."""
    began_s = time.monotonic()
    return api.track(key), time.monotonic() - began_s


def track_until_acknowledged(api: Api, key: str) -> None:
    wait_for("an acknowledgement", lambda: api.track(key).status_code == 200, RECOVERY_S)


def test_while_postgres_stands_still_callers_get_503_soon(api: Api, own_stack: Connection) -> None:
    keys = [new_key() for _ in range(OUTAGE_REQUESTS)]
    assert api.track(new_key()).status_code == 200
    with stopped(own_stack.pids["postgres"]):
        with ThreadPoolExecutor(OUTAGE_REQUESTS) as clients:
            first = list(clients.map(lambda key: track(api, key), keys))
            later = list(clients.map(lambda key: track(api, key), keys))
        for answer, seconds in (*first, *later):
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert seconds < FIRST_ANSWER_S_MAX
        wait_for("not ready", lambda: api.http.get("/readyz").status_code == 503, RECOVERY_S)
    # What became of them nobody knew: the same key again stores each once.
    for key in keys:
        track_until_acknowledged(api, key)
    wait_for("ready", lambda: api.http.get("/readyz").status_code == 200, RECOVERY_S)
    api.await_usage(str(1 + OUTAGE_REQUESTS), RECOVERY_S)


def test_when_postgres_is_killed_everything_recovers_by_itself(
    api: Api, own_stack: Connection
) -> None:
    assert api.track(new_key()).status_code == 200
    os.kill(own_stack.pids["postgres"], signal.SIGKILL)
    answer, seconds = track(api, "a key")
    assert answer.status_code in (200, 503)
    assert seconds < FIRST_ANSWER_S_MAX
    track_until_acknowledged(api, "a key")
    api.await_usage("2", RECOVERY_S)
