"""Waits until everything that was acknowledged has arrived everywhere."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import grpc
from usageflow.ingest.v1 import ingest_pb2, ingest_pb2_grpc

from cli.databases import connected
from tests.chaos.facts import (
    Counts,
    StoredEvent,
    count_stored,
    database_time,
    read_counts,
    read_events,
)
from tests.chaos.findings import Findings, Kind, Problem
from tests.chaos.stack import ChaosStack
from tests.e2e.api import internal_metadata

# A message may wait 40 s for its next sending and 30 s for its acknowledgement.
SETTLE_S_MAX = 150.0
READS_MAX = 5
POLL_S = 0.2
# aggregator's tables of work to do.
WORK = ("outbox", "bucket_recounts")
CALL_TIMEOUT_S = 5.0


class AtRest(NamedTuple):
    """What is stored, and what is counted of it."""

    stored: list[StoredEvent]
    counted: Counts


async def at_rest(stack: ChaosStack, wait_s: float, findings: Findings) -> AtRest:
    """Both, read while nothing was on its way: a request whose sender has given up may be."""
    databases = stack.connection.databases
    for _read in range(READS_MAX):
        stored = [event async for event in read_events(databases["ingest"])]
        quiet = await _quiet(stack, wait_s, findings)
        counted = await read_counts(databases["aggregator"])
        voids = sum(event.void for event in stored)
        if not quiet or await count_stored(databases["ingest"]) == (len(stored), voids):
            return AtRest(stored, counted)
    findings.add(Problem.NOT_SETTLED, "events are stored although nobody sends any")
    return AtRest(stored, counted)


async def _quiet(stack: ChaosStack, wait_s: float, findings: Findings) -> bool:
    before = findings.of(Kind.WRONG)
    if not await _settled(stack, wait_s):
        findings.add(Problem.NOT_SETTLED, f"for {wait_s:.0f} s")
    for table in WORK:
        if not await _drained(stack.connection.databases["aggregator"], table, wait_s):
            findings.add(Problem.NOT_DRAINED, f"aggregator's {table}")
    return findings.of(Kind.WRONG) == before


async def _settled(stack: ChaosStack, wait_s: float) -> bool:
    """Whether ingest's watermark passes this moment within `wait_s`."""
    connection = stack.connection
    wanted = await database_time(connection.databases["ingest"])
    deadline_s = asyncio.get_running_loop().time() + wait_s
    async with grpc.aio.insecure_channel(connection.grpc["ingest"]) as channel:
        while asyncio.get_running_loop().time() < deadline_s:
            if (reached := await _watermark(channel, stack.home)) and reached > wanted:
                return True
            await asyncio.sleep(POLL_S)
    return False


async def _drained(database_url: str, table: str, wait_s: float) -> bool:
    """Whether a table of work to do becomes empty within `wait_s`."""
    deadline_s = asyncio.get_running_loop().time() + wait_s
    async with connected(database_url) as connection:
        while await connection.fetchval(f"SELECT count(*) FROM {table}"):
            if asyncio.get_running_loop().time() > deadline_s:
                return False
            await asyncio.sleep(POLL_S)
    return True


async def _watermark(channel: grpc.aio.Channel, home: Path) -> datetime | None:
    stub = ingest_pb2_grpc.IngestInternalServiceStub(channel)
    try:
        response = await stub.GetWatermark(
            ingest_pb2.GetWatermarkRequest(),
            timeout=CALL_TIMEOUT_S,
            metadata=internal_metadata(home),
        )
    except grpc.aio.AioRpcError:
        return None
    return response.watermark.ToDatetime(tzinfo=UTC)
