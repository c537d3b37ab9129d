"""An import from its file to its summary."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx

from cli.importing.batches import Batch, batches
from cli.importing.dry_run import DryRun
from cli.importing.keys import DerivedKeys
from cli.importing.lines import csv_lines, ndjson_lines
from cli.importing.read_ahead import read_ahead
from cli.importing.report import Report
from cli.importing.sender import CONNECT_TIMEOUT_S, TIMEOUT_S, Answer, Sender
from cli.importing.source import Format, Source, opened
from cli.importing.target import Target


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be imported, and how. `target` None: a dry run."""

    path: str
    format: Format
    target: Target | None
    report_path: Path
    column_map: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    """Tells files apart whose equal lines are different events."""
    batch_lines: int = 1_000
    in_flight: int = 4


class Progress(Protocol):
    """Shows how far an import is."""

    def begin(self, source: Source) -> None:
        """The file is open."""

    def show(self, position_bytes: int, report: Report) -> None:
        """So much of the file was answered."""

    def wait(self, why: str) -> None:
        """Nothing goes on for a moment."""


class _Sends(Protocol):
    async def send(self, batch: Batch) -> Answer:
        """What became of the batch."""


async def run(plan: Plan, report: Report, progress: Progress) -> float:
    """Import the file; the seconds it took. What was answered is in the report.

    ImportStoppedError when it can't be finished, OSError when the report can't be written.
    """
    began_s = time.monotonic()
    with opened(plan.path) as source:
        progress.begin(source)
        if plan.format is Format.CSV:
            lines = csv_lines(source.stream, plan.column_map)
        else:
            lines = ndjson_lines(source.stream)
        found = batches(lines, DerivedKeys(plan.source), source, plan.batch_lines)
        flight = _Flight(plan.in_flight, report, progress.show)
        async with aclosing(read_ahead(found)) as ahead:
            if plan.target is None:
                await flight.send_all(ahead, DryRun())
            else:
                async with _client(plan.target, plan.in_flight) as client:
                    sender = Sender(client, progress.wait, compress=plan.target.compress)
                    await flight.send_all(ahead, sender)
    return time.monotonic() - began_s


class _Flight:
    """Batches on their way, a bounded number at a time, each into the report when answered."""

    def __init__(self, in_flight: int, report: Report, show: Callable[[int, Report], None]) -> None:
        self._room = asyncio.Semaphore(in_flight)
        self._report = report
        self._show = show
        self._position_bytes = 0

    async def send_all(self, ahead: AsyncIterator[Batch], sends: _Sends) -> None:
        """Return when every batch was answered; ImportStoppedError of the first that can't be."""
        try:
            async with asyncio.TaskGroup() as group:
                async for batch in ahead:
                    await self._room.acquire()
                    group.create_task(self._send(batch, sends))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    async def _send(self, batch: Batch, sends: _Sends) -> None:
        try:
            self._report.add(batch, await sends.send(batch) if batch.lines else None)
            self._position_bytes = max(self._position_bytes, batch.position_bytes)
            self._show(self._position_bytes, self._report)
        finally:
            self._room.release()


def _client(target: Target, in_flight: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=target.url,
        headers={"x-usageflow-api-key": target.api_key},
        timeout=httpx.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=None),
        limits=httpx.Limits(max_connections=in_flight),
        # A proxy of the environment is for other machines.
        trust_env=not target.is_here,
    )
