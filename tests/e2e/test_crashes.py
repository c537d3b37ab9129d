"""Processes are killed and NATS loses what it has: every acknowledged event counts once."""

import asyncio
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import pytest

from cli.connection import Connection
from cli.embedded import EmbeddedNats
from cli.home import new_secret
from cli.ports import free_port
from cli.stack import running_stack, start_stack, wait_for_stack
from tests.e2e.api import Api, connection_of, new_key, new_organization, wait_for
from tests.e2e.homes import copy_home

RECOVERY_S = 60.0
# Longer than a look at the database and a kill take, shorter than the gateway waits for ingest.
PAUSE_S = 2


def count(database_url: str, query: str) -> int:
    """A number from a service's database."""

    async def ask() -> int:
        connection = await asyncpg.connect(database_url)
        try:
            return int(await connection.fetchval(query))
        finally:
            await connection.close()

    return asyncio.run(ask())


def kill(home: Path, name: str) -> None:
    """kill -9 a process of the stack and wait until the supervisor has another in its place."""
    before = connection_of(home).pids[name]
    os.kill(before, signal.SIGKILL)
    wait_for(f"another {name}", lambda: connection_of(home).pids[name] != before, RECOVERY_S)


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNats]:
    """A NATS server that the tests, not the stack, start and stop."""
    directory = tmp_path_factory.mktemp("own_nats")
    server = EmbeddedNats(directory, free_port(), new_secret(), directory / "log")
    server.prepare()
    start_again(server)
    yield server
    server.stop()


@dataclass
class Stack:
    """One that several tests hurt, one after the other, each as an organization of its own."""

    home: Path
    connection: Connection

    def new_api(self) -> Api:
        return Api(
            self.connection.http, new_organization(self.home, self.connection.grpc["accounts"])
        )


@pytest.fixture(scope="module")
def pausing(tmp_path_factory: pytest.TempPathFactory, prepared_home: Path) -> Iterator[Stack]:
    """A stack whose services pause between a commit and what comes after it."""
    home = copy_home(prepared_home, tmp_path_factory.mktemp("pausing"))
    pause = {"USAGEFLOW_TEST_PAUSE_AFTER_COMMIT_S": str(PAUSE_S)}
    with running_stack(home, environ=pause) as connection:
        yield Stack(home, connection)


@pytest.fixture(scope="module")
def with_own_nats(
    tmp_path_factory: pytest.TempPathFactory, prepared_home: Path, nats: EmbeddedNats
) -> Iterator[Stack]:
    """A stack whose NATS is `nats`."""
    home = copy_home(prepared_home, tmp_path_factory.mktemp("with_own_nats"))
    with running_stack(home, environ={"USAGEFLOW_NATS_URL": nats.url}) as connection:
        yield Stack(home, connection)


def start_again(server: EmbeddedNats) -> None:
    server.start()
    asyncio.run(server.ready())


def track_until_acknowledged(api: Api, key: str) -> None:
    """Send as a careful client does: with the same key until there is an answer."""

    def acknowledged() -> bool:
        try:
            return api.track(key).status_code == 200
        except httpx.TransportError:
            return False

    wait_for("an acknowledgement", acknowledged, RECOVERY_S)


EVENTS_STORED = "SELECT count(*) FROM events"
EVENTS_COUNTED = "SELECT coalesce(sum(event_count), 0)::bigint FROM usage_buckets"


def test_ingest_killed_between_commit_and_answer_stores_one_event(pausing: Stack) -> None:
    api = pausing.new_api()
    ingest_url = pausing.connection.databases["ingest"]
    before = count(ingest_url, EVENTS_STORED)
    key = new_key()
    answers: list[httpx.Response] = []
    client = threading.Thread(target=lambda: answers.append(api.track(key)))
    client.start()
    wait_for("the commit", lambda: count(ingest_url, EVENTS_STORED) > before, 30)
    assert not answers
    kill(pausing.home, "ingest")
    client.join()
    # The gateway may have got an answer from the new process by repeating its call.
    assert answers[0].status_code in (200, 503)
    retried: list[httpx.Response] = []

    def replayed() -> bool:
        retried.append(api.track(key))
        return retried[-1].status_code == 200

    wait_for("the replay", replayed, RECOVERY_S)
    assert retried[-1].headers["idempotent-replayed"] == "true"
    assert count(ingest_url, EVENTS_STORED) == before + 1
    api.await_usage("1", RECOVERY_S)


def test_aggregator_killed_between_commit_and_ack_counts_once(pausing: Stack) -> None:
    api = pausing.new_api()
    aggregator_url = pausing.connection.databases["aggregator"]
    before = count(aggregator_url, EVENTS_COUNTED)
    track_until_acknowledged(api, new_key())
    wait_for("the fold's commit", lambda: count(aggregator_url, EVENTS_COUNTED) > before, 30)
    kill(pausing.home, "aggregator")
    # A second event shows that the first one's message has been through again.
    track_until_acknowledged(api, new_key())
    api.await_usage("2", RECOVERY_S)
    assert count(aggregator_url, EVENTS_COUNTED) == before + 2


def test_events_sent_while_nats_is_stopped_are_counted_once(
    nats: EmbeddedNats, with_own_nats: Stack
) -> None:
    api = with_own_nats.new_api()
    for number in range(500):
        if number == 100:
            nats.stop()
        # Ingest keeps acknowledging without NATS.
        assert api.track(new_key()).status_code == 200
    start_again(nats)
    api.await_usage("500", RECOVERY_S)


def test_events_are_counted_once_when_nats_loses_its_whole_store(
    nats: EmbeddedNats, with_own_nats: Stack
) -> None:
    api = with_own_nats.new_api()
    sent = 0
    for round_number in range(40):
        events = [{"metric": "API_CALL", "amount": 1} for _ in range(50)]
        assert api.batch(events)["accepted"] == 50
        sent += 50
        if round_number in (10, 25):
            nats.stop()
            shutil.rmtree(nats.directory / "jetstream")
            start_again(nats)
    api.await_usage(str(sent), RECOVERY_S)
    for key in ("once more",):
        track_until_acknowledged(api, key)
    api.await_usage(str(sent + 1), RECOVERY_S)


def test_every_process_of_the_stack_may_be_killed_in_turn(
    tmp_path: Path, prepared_home: Path
) -> None:
    with running_stack(copy_home(prepared_home, tmp_path)) as connection:
        api = Api(connection.http, connection.api_key)
        sent = 0
        for name in ("gateway", "ingest", "postgres", "aggregator", "nats", "accounts"):
            for _ in range(5):
                track_until_acknowledged(api, new_key())
                sent += 1
            kill(tmp_path, name)
        track_until_acknowledged(api, new_key())
        api.await_usage(str(sent + 1), RECOVERY_S)


def test_stack_that_was_stopped_goes_on_where_it_was(tmp_path: Path, prepared_home: Path) -> None:
    """Whether it was killed, or asked to stop."""
    port = free_port()
    copy_home(prepared_home, tmp_path)
    child = start_stack(tmp_path, http_port=port)
    try:
        connection = wait_for_stack(tmp_path, child)
        api = Api(connection.http, connection.api_key)
        for rounds, number in enumerate((signal.SIGKILL, signal.SIGINT), start=1):
            for _ in range(50):
                assert api.track(new_key()).status_code == 200
            os.kill(child.pid, number)
            child.popen.wait(30)
            child = start_stack(tmp_path, http_port=port)
            again = wait_for_stack(tmp_path, child)
            assert (again.api_key, again.http) == (connection.api_key, connection.http)
            api.await_usage(str(50 * rounds), RECOVERY_S)
    finally:
        child.stop(signal.SIGINT, 30)
