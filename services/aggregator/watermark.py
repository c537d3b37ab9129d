"""The instant up to which everything that ingest accepted has been counted here."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Protocol

import grpc
from pydantic import SecretStr
from usageflow.ingest.v1 import ingest_pb2, ingest_pb2_grpc

from services.kit.errors import UnavailableError, from_rpc_error
from services.kit.grpc_client import internal_metadata

ASK_TIMEOUT_S = 1.0


class WatermarkSource(Protocol):
    """Who knows the watermark. What was once said stays true: batches are never un-counted."""

    @property
    def last(self) -> datetime | None:
        """The newest that was told; None: none yet."""

    async def ask(self) -> datetime:
        """The watermark as of now, or a newer one that was told before. UnavailableError."""


class NewWatermarkSource(Protocol):
    """Who asks for the watermark each time."""

    async def ask_anew(self) -> datetime:
        """What is told now. Whatever was committed before this is called, and accepted before the
        instant that is told, has been counted. UnavailableError.
        """


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits to be counted: nothing that was accepted before `watermark`; nothing at all."""

    watermark: datetime
    empty: bool


class BacklogSource(Protocol):
    """Who tells what waits to be counted."""

    async def ask_backlog(self) -> Backlog:
        """As of now. UnavailableError."""


async def newest_watermark(source: WatermarkSource) -> datetime | None:
    """As of now, or the last that was told while ingest is away (it is still true)."""
    try:
        return await source.ask()
    except UnavailableError:
        return source.last


# To ask ingest takes a fourth of the time of a question. Half of this old it is asked for anew,
# while whoever comes is told the old one: under load nobody waits.
RECENT_S = 1.0


class RecentWatermark:
    """What a source has told within RECENT_S, or tells now.

    It is true of every snapshot that is taken later, and only tells less than it could.
    """

    def __init__(self, source: WatermarkSource, recent_s: float = RECENT_S) -> None:
        self._source = source
        self._recent_s = recent_s
        self._told: datetime | None = None
        self._asked_s = 0.0
        self._asking: asyncio.Task[None] | None = None

    @property
    def last(self) -> datetime | None:
        """The newest that was told; None: none yet."""
        return self._source.last

    async def ask(self) -> datetime:
        """The watermark as of `recent_s` ago, or a newer one. UnavailableError."""
        age_s = monotonic() - self._asked_s
        if self._told is None or age_s >= self._recent_s:
            return await self._ask_now()
        if age_s >= self._recent_s / 2 and self._asking is None:
            self._asking = asyncio.create_task(self._ask_behind())
        return self._told

    async def _ask_now(self) -> datetime:
        asked_s = monotonic()
        self._told = await self._source.ask()
        self._asked_s = asked_s
        return self._told

    async def _ask_behind(self) -> None:
        try:
            # Whoever comes when it has become too old asks, and is told why there is none.
            with contextlib.suppress(UnavailableError):
                await self._ask_now()
        finally:
            self._asking = None


class IngestWatermark:
    """Asks ingest. Callers that come while a call is running share its answer."""

    def __init__(self, channel: grpc.aio.Channel, internal_token: SecretStr) -> None:
        self._ingest = ingest_pb2_grpc.IngestInternalServiceStub(channel)
        self._token = internal_token
        self._running: asyncio.Task[datetime] | None = None
        self._last: datetime | None = None

    @property
    def last(self) -> datetime | None:
        """The newest that ingest told; None: none yet."""
        return self._last

    async def ask(self) -> datetime:
        """The watermark as of now, or of a call that was running. UnavailableError."""
        if self._running is None:
            self._running = asyncio.create_task(self._call())
            self._running.add_done_callback(self._done)
        return await asyncio.shield(self._running)

    async def ask_anew(self) -> datetime:
        """What a call that begins now is told: what was told before knows nothing of batches that
        were committed later with an earlier time of acceptance. UnavailableError.
        """
        return (await self.ask_backlog()).watermark

    async def ask_backlog(self) -> Backlog:
        """What waits to be counted now. UnavailableError."""
        response = await self._get_watermark()
        told = response.watermark.ToDatetime(tzinfo=UTC)
        # Replicas of ingest may be a little apart: the newest is as true as the others.
        self._last = told if self._last is None else max(told, self._last)
        return Backlog(told, response.all_applied)

    def _done(self, task: asyncio.Task[datetime]) -> None:
        self._running = None
        if not task.cancelled():
            # Whoever still waits gets it too; nobody may be left who does.
            task.exception()

    async def _call(self) -> datetime:
        told = await self.ask_anew()
        return told if self._last is None else max(told, self._last)

    async def _get_watermark(self) -> ingest_pb2.GetWatermarkResponse:
        try:
            return await self._ingest.GetWatermark(
                ingest_pb2.GetWatermarkRequest(),
                timeout=ASK_TIMEOUT_S,
                metadata=internal_metadata(self._token),
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
