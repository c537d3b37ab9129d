"""A fault campaign: load, faults, quiet, and then the question whether every promise was kept."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from services.kit.grpc_client import open_channel
from tests.chaos import answers, checker, facts
from tests.chaos.findings import Findings, Problem
from tests.chaos.injector import Injector
from tests.chaos.journal import Journal
from tests.chaos.load import Load, Style
from tests.chaos.schedule import Planned, plan
from tests.chaos.settling import SETTLE_S_MAX, at_rest
from tests.chaos.stack import chaos_stack
from tests.chaos.tenants import make_tenants
from tests.chaos.voids import Voider
from tests.chaos.ways import GrpcWays, HttpWays, Refusals

REPORT_EVERY_S = 20.0


@dataclass(frozen=True)
class Plan:
    """What a campaign does. `faults` None: drawn from the seed."""

    seed: int
    duration_s: float
    faults: Sequence[Planned] | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    voids: bool = True
    settle_s: float = SETTLE_S_MAX

    def schedule(self) -> Sequence[Planned]:
        """The faults."""
        return plan(self.seed, self.duration_s) if self.faults is None else self.faults


@dataclass(frozen=True)
class Result:
    """What came of a campaign."""

    seed: int
    kills: int
    acknowledged: int
    findings: Findings

    @property
    def ok(self) -> bool:
        """Whether every promise was kept, and there were any."""
        return not self.findings and self.acknowledged > 0

    def __str__(self) -> str:
        found = self.findings
        return (
            f"seed={self.seed} kills={self.kills} acknowledged={self.acknowledged}"
            f" lost={found.lost} doubled={found.doubled}"
        )


async def run(plan: Plan, home: Path, console: Console) -> Result:
    """Run a campaign in `home`, which is left as it is at the end."""
    findings = Findings()
    journal = Journal(home / "journal.ndjson")
    async with AsyncExitStack() as end:
        end.callback(journal.close)
        stack = await end.enter_async_context(chaos_stack(home, plan.environ))
        log = end.enter_context((home / "faults.log").open("w", encoding="utf-8"))
        injector = Injector(stack, plan.seed, log)
        tenants = await asyncio.to_thread(
            make_tenants, stack.home, stack.connection.grpc["accounts"]
        )
        refusals = Refusals()
        http = HttpWays(stack.http, refusals)
        end.push_async_callback(http.close)
        channel = open_channel(stack.grpc_ingest)
        end.push_async_callback(channel.close)
        voider = Voider(f"{plan.seed}/void", channel, tenants, journal, refusals, active=plan.voids)
        styles = _styles(http, GrpcWays(channel, refusals))
        load = Load(plan.seed, styles, tenants, journal, voider)

        await _trouble(plan, load, injector, findings, console)
        for text, times in refusals.counts.items():
            findings.add(Problem.REFUSED, text, times)
        console.print("  quiet; waiting until everything is aggregated")
        stored, counted = await at_rest(stack, plan.settle_s, findings)
        attempts, voids = journal.read()
        checker.check_stored(attempts, stored, findings)
        checker.check_voided(voids, stored, findings)
        checker.check_counted(checker.recount(stored), counted, findings)
        databases = stack.connection.databases
        customers = await facts.read_customers(databases["invoicer"])
        checker.check_customers(stored, customers, findings)
        await answers.check(stack.http, tenants, stored, findings)
        segments = await facts.count_segments(databases["ingest"])
        console.print(f"  {len(stored)} events stored in {segments} segments")
    return Result(plan.seed, injector.kills, checker.acknowledged(attempts), findings)


def _styles(http: HttpWays, grpc: GrpcWays) -> list[Style]:
    return [
        Style("http", http.single, senders=10, parcel_max=1, pause_s=0.05),
        Style("http-batch", http.batch, senders=2, parcel_max=100, pause_s=0.6),
        Style("http-ndjson", http.ndjson, senders=1, parcel_max=500, pause_s=2.0),
        Style("grpc-record", grpc.record, senders=2, parcel_max=200, pause_s=0.8),
        Style("grpc-stream", grpc.stream, senders=1, parcel_max=200, pause_s=0.8),
    ]


async def _trouble(
    plan: Plan, load: Load, injector: Injector, findings: Findings, console: Console
) -> None:
    """Load and faults at once, then load without faults until every event has its answer."""
    reporting = asyncio.create_task(_report(load, injector, console))
    try:
        async with asyncio.TaskGroup() as both:
            sending = both.create_task(load.run(plan.duration_s))
            both.create_task(injector.run(plan.schedule()))
    finally:
        reporting.cancel()
        with suppress(asyncio.CancelledError):
            await reporting
    console.print(f"  answers: {load}; batches redelivered {injector.redelivered}")
    if not sending.result():
        findings.add(Problem.NOT_ANSWERED, f"{load.unanswered} events with keys")


async def _report(load: Load, injector: Injector, console: Console) -> None:
    began_s = asyncio.get_running_loop().time()
    while True:
        await asyncio.sleep(REPORT_EVERY_S)
        seconds = asyncio.get_running_loop().time() - began_s
        console.print(f"  {seconds:4.0f} s  kills {injector.kills}, answers {load.acknowledged}")
