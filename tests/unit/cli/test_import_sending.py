"""Sending batches: what is tried again, for how long, and what is not."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from cli.importing.batches import Batch
from cli.importing.errors import ImportStoppedError
from cli.importing.lines import Line
from cli.importing.sender import Answer, Sender, retry_after_s

Handler = Callable[[httpx.Request], httpx.Response]


def answer(*statuses: str) -> httpx.Response:
    results = [{"index": n, "status": status} for n, status in enumerate(statuses)]
    counts = {
        name: statuses.count(status)
        for name, status in (
            ("accepted", "ACCEPTED"),
            ("duplicates", "DUPLICATE"),
            ("conflicts", "CONFLICT"),
            ("rejected", "REJECTED"),
        )
    }
    return httpx.Response(200, json={**counts, "results": results})


class Sending:
    """A Sender whose waits take no time, and what it did."""

    def __init__(self, handle: Handler, *, compress: bool = False) -> None:
        self.waited_s: list[float] = []
        self.told: list[str] = []
        client = httpx.AsyncClient(
            base_url="http://gateway.example", transport=httpx.MockTransport(handle)
        )
        self._sender = Sender(
            client,
            self.told.append,
            compress=compress,
            sleep=self._sleep,
            now_s=lambda: sum(self.waited_s),
        )

    async def _sleep(self, seconds: float) -> None:
        self.waited_s.append(seconds)

    async def send(self) -> Answer:
        """A batch of two lines."""
        lines = [Line(n, b'{"n":%d}' % n, has_key=True) for n in (1, 2)]
        return await self._sender.send(Batch(lines))


async def test_a_batch_is_sent_as_ndjson() -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return answer("ACCEPTED", "REJECTED")

    found = await Sending(handle).send()
    [request] = seen
    assert (request.url.path, request.content) == ("/api/track/batch", b'{"n":1}\n{"n":2}')
    assert request.headers["content-type"] == "application/x-ndjson"
    assert (found.accepted, found.rejected) == (1, 1)


async def test_a_compressed_batch_says_so() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        assert request.headers["content-encoding"] == "gzip"
        assert gzip.decompress(request.content) == b'{"n":1}\n{"n":2}'
        return answer("ACCEPTED", "ACCEPTED")

    await Sending(handle, compress=True).send()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_tried_again_with_growing_delays(status: int) -> None:
    busy = httpx.Response(status, json={"error": "Busy"})
    answers = [*[busy] * 4, answer("ACCEPTED", "ACCEPTED")]
    sending = Sending(lambda _request: answers.pop(0))
    assert (await sending.send()).accepted == 2
    assert len(sending.waited_s) == 4
    bounds = [(0.1, 0.2), (0.2, 0.4), (0.4, 0.8), (0.8, 1.6)]
    for (low, high), waited_s in zip(bounds, sending.waited_s, strict=True):
        assert low <= waited_s <= high
    assert sending.told[0].startswith(f"{status} Busy; trying again in")


async def test_retry_after_is_honoured() -> None:
    busy = httpx.Response(503, headers={"retry-after": "7"})
    answers = [busy, answer("ACCEPTED", "ACCEPTED")]
    sending = Sending(lambda _request: answers.pop(0))
    await sending.send()
    assert sending.waited_s == [7.0]


async def test_a_broken_connection_is_tried_again() -> None:
    calls = 0

    def handle(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise httpx.ReadError("connection reset", request=request)
        return answer("DUPLICATE", "DUPLICATE")

    assert (await Sending(handle).send()).duplicates == 2


@pytest.mark.parametrize("answered_before", [False, True])
async def test_nobody_waits_for_ever(answered_before: bool) -> None:
    """A wrong address shows soon; an outage in the middle is waited out for ten minutes."""
    answers = [answer("ACCEPTED", "ACCEPTED")] if answered_before else []

    def handle(_request: httpx.Request) -> httpx.Response:
        return answers.pop() if answers else httpx.Response(503)

    sending = Sending(handle)
    if answered_before:
        await sending.send()
    with pytest.raises(ImportStoppedError, match="503"):
        await sending.send()
    assert sum(sending.waited_s) == pytest.approx(600 if answered_before else 30, abs=11)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415, 307])
async def test_a_refusal_is_told_and_not_tried_again(status: int) -> None:
    refusal = httpx.Response(status, json={"error": "Invalid API key"})
    sending = Sending(lambda _request: refusal)
    with pytest.raises(ImportStoppedError, match=f"{status} Invalid API key"):
        await sending.send()
    assert sending.waited_s == []


@pytest.mark.parametrize(
    "wrong",
    [httpx.Response(200, text="<html>"), answer("ACCEPTED"), httpx.Response(200, json={})],
)
async def test_an_answer_that_does_not_fit_is_no_answer(wrong: httpx.Response) -> None:
    with pytest.raises(ImportStoppedError):
        await Sending(lambda _request: wrong).send()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("7", 7.0), ("0", 0.0), ("", None), ("soon", None), ("-1", None), ("1" * 400, 111_111.0)],
)
def test_a_retry_after_in_seconds(text: str, expected: float | None) -> None:
    assert retry_after_s(httpx.Headers({"retry-after": text})) == expected


def test_a_retry_after_that_names_a_time() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    found_s = retry_after_s(httpx.Headers({"retry-after": soon}))
    assert found_s is not None
    assert 25 < found_s <= 30
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    assert retry_after_s(httpx.Headers({"retry-after": past})) == 0


async def test_json_of_the_answer_may_grow() -> None:
    """A newer UsageFlow may say more."""
    body = json.loads(answer("ACCEPTED", "ACCEPTED").content) | {"usageToken": "t"}
    assert (await Sending(lambda _request: httpx.Response(200, json=body)).send()).accepted == 2
