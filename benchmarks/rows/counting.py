"""What the fold alone costs, and whether replicas get into each other's way."""

import secrets
from contextlib import ExitStack
from statistics import median

from benchmarks.bench import Bench
from benchmarks.figures import Row, interleaved
from benchmarks.messages import FoldLoad, FoldResult
from benchmarks.processes import Running, run

GENERATOR = "benchmarks.generators.counting"
REPLICAS = 2
CUSTOMERS = 1_000


def fold_alone(bench: Bench, name: str) -> list[Row]:
    """Events a second of one core, without SQL."""
    load = fold_load(bench, "user_", CUSTOMERS)
    results = [run(GENERATOR, load, FoldResult) for _ in range(bench.plan.rounds)]
    return [Row(name, median(each.events_per_core_s for each in results), "events/s")]


def one_customer(bench: Bench, name: str) -> list[Row]:
    """Two replicas that count one customer's events; floor: each another customer's."""
    url = bench.stack.connection.databases["aggregator"]
    values, floors = interleaved(
        lambda: together(bench, url, ["busy_", "busy_"]),
        lambda: bench.floor(together(bench, url, ["one_", "other_"])),
        bench.plan.rounds,
    )
    return [Row(name, median(values), "events/s", median(floors))]


def together(bench: Bench, url: str, prefixes: list[str]) -> float:
    """Events/s of a replica for each prefix, all at once."""
    organization_id = f"org_{secrets.token_hex(16)}"
    with ExitStack() as stack:
        running = [
            stack.enter_context(Running(GENERATOR, load))
            for load in (fold_load(bench, prefix, 1, url, organization_id) for prefix in prefixes)
        ]
        results = [each.result(FoldResult) for each in running]
    counted = sum(each.events_per_s for each in results)
    bench.report(f"{counted:,.0f} events/s")
    return counted


def fold_load(
    bench: Bench, prefix: str, customers: int, url: str = "", organization_id: str = "org_1"
) -> FoldLoad:
    """As long as the plan says."""
    return FoldLoad(
        database_url=url,
        organization_id=organization_id,
        prefix=prefix,
        customers=customers,
        warm_up_s=bench.plan.warm_up_s,
        measure_s=bench.plan.measure_s,
    )
