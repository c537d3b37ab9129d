"""How soon a list of raw events is there, when many are stored."""

import http.client
import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from urllib.parse import urlencode

from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Row, percentile
from benchmarks.generators.requests import CUSTOMERS

EVENTS = "/api/events"
WAIT_S = 30.0
LIMIT = 100
Asked = dict[str, str]
# From when until when the events happened.
Span = tuple[datetime, datetime]


class Lister:
    """Asks for lists over one connection, one after another."""

    def __init__(self, bench: Bench) -> None:
        self._client = http.client.HTTPConnection(
            bench.stack.host, bench.stack.port, timeout=WAIT_S
        )
        self._headers = {"x-usageflow-api-key": bench.stack.connection.api_key}

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def page(self, asked: Asked) -> dict[str, object]:
        """A page of events; BenchmarkError when there is none."""
        self._client.request("GET", f"{EVENTS}?{urlencode(asked)}", headers=self._headers)
        answer = self._client.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise BenchmarkError(f"{asked}: {answer.status} {body[:200]!r}")
        page: dict[str, object] = json.loads(body)
        if not page["data"]:
            raise BenchmarkError(f"nothing was found: {asked}")
        return page

    def timed(self, name: str, questions: Iterator[Asked]) -> Row:
        """The milliseconds that each page takes."""
        taken_ms = []
        for asked in questions:
            begun_s = time.perf_counter()
            self.page(asked)
            taken_ms.append((time.perf_counter() - begun_s) * 1_000)
        taken_ms.sort()
        p50, p99 = percentile(taken_ms, 0.5), percentile(taken_ms, 0.99)
        return Row(name, p99, "ms", None, p50, p99)


def lists(bench: Bench, suffix: str, metric: str, span: Span, keys: list[str]) -> list[Row]:
    """Pages of 100 events of `metric` by all that they are searched by, and one after another.

    `keys` are idempotency keys of stored events.
    """
    lister = Lister(bench)
    count = bench.plan.list_questions
    try:
        kinds: dict[str, Iterator[Asked]] = {
            "newest": (_limited() for _ in range(count)),
            "customer": (_limited(customerId=_customer(n)) for n in range(count)),
            "metric": (_limited(metric=metric) for _ in range(count)),
            "customer_metric": (
                _limited(customerId=_customer(n), metric=metric) for n in range(count)
            ),
            "time": (
                _limited(**{"from": (at - timedelta(seconds=10)).isoformat(), "to": at.isoformat()})
                for at in _spread(span, count)
            ),
            "customer_time": (
                _limited(customerId=_customer(n), to=at.isoformat())
                for n, at in enumerate(_spread(span, count))
            ),
            "key": ({"idempotencyKey": keys[n % len(keys)]} for n in range(count)),
            "pages": _pages(lister, metric, count),
        }
        return [
            lister.timed(f"events_by_{kind}{suffix}", questions)
            for kind, questions in kinds.items()
        ]
    finally:
        lister.close()


def _limited(**asked: str) -> Asked:
    return {"limit": str(LIMIT), **asked}


def _customer(number: int) -> str:
    return f"user_{number * 7 % CUSTOMERS:04d}"


def _spread(span: Span, count: int) -> Iterator[datetime]:
    """Times of the span's second half: at its begin the generator only starts."""
    oldest, newest = span
    for number in range(count):
        yield newest - (newest - oldest) * number / (2 * count)


def _pages(lister: Lister, metric: str, count: int) -> Iterator[Asked]:
    """One page after another; the cursor comes from a page that is not timed."""
    asked = _limited(metric=metric)
    cursor = lister.page(asked)["nextCursor"]
    for _ in range(count):
        deeper = {**asked, "cursor": str(cursor)}
        yield deeper
        cursor = lister.page(deeper)["nextCursor"]
