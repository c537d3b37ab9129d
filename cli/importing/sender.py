"""Sends batches to POST /api/track/batch until each is answered."""

import asyncio
import contextlib
import gzip
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx
import msgspec

from cli.importing.batches import Batch
from cli.importing.errors import ImportStoppedError

PATH: Final = "/api/track/batch"
TIMEOUT_S: Final = 60.0
CONNECT_TIMEOUT_S: Final = 10.0
# Restarts, overload and short outages are waited out; a wrong address is not waited for as long.
RETRY_S_MAX: Final = 600.0
FIRST_ANSWER_S_MAX: Final = 30.0
DELAY_S_MIN: Final = 0.2
DELAY_S_MAX: Final = 10.0
RETRIED: Final = frozenset((408, 425, 429, 500, 502, 503, 504))
GZIP_LEVEL: Final = 1
ERROR_CHARS_MAX: Final = 300


class Result(msgspec.Struct, gc=False):
    """What became of one line of a batch; status ACCEPTED, DUPLICATE, CONFLICT or REJECTED."""

    index: int
    status: str
    error: str | None = None


class Answer(msgspec.Struct):
    """What became of a batch."""

    accepted: int
    duplicates: int
    conflicts: int
    rejected: int
    results: list[Result]


class _Error(msgspec.Struct):
    error: str = ""


class _TryAgainError(Exception):
    """Not answered; after `after_s` (None: whenever) it may be."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


_decode_answer = msgspec.json.Decoder(Answer).decode
_decode_error = msgspec.json.Decoder(_Error).decode


class Sender:
    """Sends with one API key. Sending a batch again is safe: its lines have idempotency keys.

    `on_wait` is told why it waits before it tries again.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        on_wait: Callable[[str], None],
        *,
        compress: bool,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._on_wait = on_wait
        self._sleep = sleep
        self._now_s = now_s
        self._compress = compress
        self._headers = {"content-type": "application/x-ndjson"}
        if compress:
            self._headers["content-encoding"] = "gzip"
        self._answered = False

    async def send(self, batch: Batch) -> Answer:
        """The answer, a result for each line. ImportStoppedError: refused, or away for too long."""
        body = batch.body()
        if self._compress:
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
        began_s = self._now_s()
        delay_s = DELAY_S_MIN
        while True:
            try:
                answer = await self._try(body, len(batch.lines))
            except _TryAgainError as error:
                patience_s = RETRY_S_MAX if self._answered else FIRST_ANSWER_S_MAX
                if self._now_s() - began_s > patience_s:
                    message = f"no batch was taken for {patience_s:.0f} s: {error}"
                    raise ImportStoppedError(message) from error
                wait_s = max(error.after_s or 0.0, random.uniform(delay_s / 2, delay_s))  # noqa: S311
                self._on_wait(f"{error}; trying again in {wait_s:.1f} s")
                await self._sleep(min(wait_s, patience_s))
                delay_s = min(2 * delay_s, DELAY_S_MAX)
            else:
                self._answered = True
                return answer

    async def _try(self, body: bytes, lines: int) -> Answer:
        try:
            response = await self._client.post(PATH, content=body, headers=self._headers)
        except httpx.TransportError as error:
            raise _TryAgainError(str(error) or type(error).__name__) from error
        if response.status_code in RETRIED:
            raise _TryAgainError(_told(response), retry_after_s(response.headers))
        if response.status_code != httpx.codes.OK:
            raise ImportStoppedError(_told(response))
        try:
            answer = _decode_answer(response.content)
        except msgspec.DecodeError as error:
            raise ImportStoppedError(f"{response.url} gave no answer of UsageFlow") from error
        if [result.index for result in answer.results] != list(range(lines)):
            raise ImportStoppedError("the answer does not fit what was sent")
        return answer


def retry_after_s(headers: httpx.Headers) -> float | None:
    """The seconds of a Retry-After header, also of one that names a time (RFC 9110, 10.2.3)."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:6])
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    return None


def _told(response: httpx.Response) -> str:
    try:
        why = _decode_error(response.content).error
    except msgspec.DecodeError:
        why = response.reason_phrase
    return f"{response.status_code} {why[:ERROR_CHARS_MAX]}".strip()
