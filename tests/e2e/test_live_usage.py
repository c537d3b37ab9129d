"""Usage as server-sent events of a whole stack."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.connection import Connection
from tests.e2e.api import Api, new_key, new_organization

ENDS_S_MAX = 30.0


@pytest.fixture
def api(stack: Connection, stack_home: Path) -> Api:
    """An organization of its own."""
    return Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))


def values(lines: Iterator[str]) -> Iterator[str]:
    """The figures of a stream's events."""
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))["data"][0]["value"]


def test_usage_comes_as_it_is_counted(api: Api) -> None:
    api.post("/api/metrics", {"key": "LIVE"})
    with api.http.stream("GET", "/api/usage/live?metric=LIVE&customerId=user_123") as response:
        told = values(response.iter_lines())
        assert next(told) == "0"
        for count in range(1, 4):
            assert api.track(new_key(), metric="LIVE").status_code == 200
            assert next(told) == str(count)


def test_what_a_usage_token_stands_for_is_in_the_first_answer(api: Api) -> None:
    sent = api.track(new_key(), metric="LIVE_TOKEN", amount=5)
    headers = {"usage-token": sent.headers["usage-token"], "Last-Event-ID": "x"}
    path = "/api/usage/live?metric=LIVE_TOKEN"
    with api.http.stream("GET", path, headers=headers) as response:
        assert next(values(response.iter_lines())) == "5"


def test_a_revoked_key_ends_its_streams(api: Api, stack: Connection) -> None:
    api.post("/api/metrics", {"key": "LIVE"})
    key = api.post("/api/keys", {"name": "k", "scopes": ["read"]})
    reader = Api(stack.http, key["secret"])
    with reader.http.stream("GET", "/api/usage/live?metric=LIVE") as response:
        lines = response.iter_lines()
        assert next(values(lines)) == "0"
        began_s = time.monotonic()
        revoking = threading.Thread(target=lambda: api.http.delete(f"/api/keys/{key['id']}"))
        revoking.start()
        for _line in lines:
            pass
        assert time.monotonic() - began_s < ENDS_S_MAX
        revoking.join()
    assert reader.http.get("/api/usage/live?metric=LIVE").status_code == 401
