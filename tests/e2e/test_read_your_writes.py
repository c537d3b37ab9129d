"""Whoever asks for usage with the token of an answer finds the event in it, at once."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cli.connection import Connection
from cli.stack import running_stack
from tests.e2e.api import Api, new_key, new_organization, wait_for
from tests.e2e.homes import copy_home

EVENTS = 200
RECOVERY_S = 60.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a stack whose aggregator is killed."""
    return tmp_path_factory.mktemp("read_your_writes")


@pytest.fixture(scope="module")
def own_stack(home: Path, prepared_home: Path) -> Iterator[Connection]:
    """That stack."""
    with running_stack(copy_home(prepared_home, home)) as connection:
        yield connection


@pytest.fixture
def api(home: Path, own_stack: Connection) -> Api:
    """An organization of its own."""
    return Api(own_stack.http, new_organization(home, own_stack.grpc["accounts"]))


def usage(api: Api, token: str) -> httpx.Response:
    return api.http.get("/api/usage?metric=API_CALL", headers={"usage-token": token})


def value_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"][0]["value"])


def test_200_times_in_a_row_the_event_just_tracked_is_in_the_usage(api: Api) -> None:
    for number in range(1, EVENTS + 1):
        answer = api.track(new_key())
        assert value_of(usage(api, answer.headers["usage-token"])) == str(number)


def test_the_answer_to_a_duplicate_stands_for_the_event_too(api: Api) -> None:
    for number in range(1, 11):
        key = new_key()
        api.track(key)
        again = api.track(key)
        assert again.headers["idempotent-replayed"] == "true"
        assert value_of(usage(api, again.headers["usage-token"])) == str(number)


def test_the_answer_to_a_batch_stands_for_all_of_its_events(api: Api) -> None:
    event = {"metric": "API_CALL", "amount": 1}
    for number in range(1, 6):
        answer = api.http.post("/api/track/batch", json={"events": [event] * 500})
        assert value_of(usage(api, answer.headers["usage-token"])) == str(number * 500)
    lines = '{"metric": "API_CALL", "amount": 1}\n' * 10_000
    headers = {"Content-Type": "application/x-ndjson"}
    answer = api.http.post("/api/track/batch", content=lines, headers=headers)
    assert value_of(usage(api, answer.headers["usage-token"])) == "12500"


def test_somebody_else_s_token_only_makes_the_answer_wait(
    api: Api, home: Path, own_stack: Connection
) -> None:
    api.track(new_key())
    other = Api(own_stack.http, new_organization(home, own_stack.grpc["accounts"]))
    token = other.track(new_key(), amount=7).headers["usage-token"]
    assert value_of(usage(api, token)) == "1"
    assert value_of(usage(other, token)) == "7"


def test_a_text_that_is_no_token_is_refused_by_its_name(api: Api) -> None:
    answer = usage(api, "no token")
    assert (answer.status_code, answer.json()["details"][0]["field"]) == (400, "usageToken")


def test_while_aggregator_is_killed_usage_is_503_and_never_without_the_event(
    api: Api, own_stack: Connection
) -> None:
    """It is stopped, so that the question waits in vain, then killed; another one takes over."""
    api.track(new_key())
    aggregator = own_stack.pids["aggregator"]
    os.kill(aggregator, signal.SIGSTOP)
    token = api.track(new_key()).headers["usage-token"]
    answers: list[httpx.Response] = []

    def ask() -> bool:
        answers.append(usage(api, token))
        return answers[-1].status_code == 200

    killer = threading.Timer(1.0, os.kill, (aggregator, signal.SIGKILL))
    killer.start()
    wait_for("the usage", ask, RECOVERY_S)
    killer.join()
    assert value_of(answers[-1]) == "2"
    assert {answer.status_code for answer in answers[:-1]} <= {503}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers[:-1])


def test_while_nats_is_stopped_usage_is_503_until_the_event_is_counted(
    api: Api, own_stack: Connection
) -> None:
    assert value_of(usage(api, api.track(new_key()).headers["usage-token"])) == "1"
    nats = own_stack.pids["nats"]
    os.kill(nats, signal.SIGSTOP)
    try:
        token = api.track(new_key()).headers["usage-token"]
        refused = usage(api, token)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        # Without the token, what has been counted is told.
        assert value_of(api.http.get("/api/usage?metric=API_CALL")) == "1"
    finally:
        os.kill(nats, signal.SIGCONT)
    wait_for("the usage", lambda: usage(api, token).status_code == 200, RECOVERY_S)
    assert value_of(usage(api, token)) == "2"
