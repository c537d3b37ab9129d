"""What rows have in common: a load's line in the results, and the bare COPY as a floor."""

from collections.abc import Sequence
from statistics import median

from benchmarks.bench import Bench, Measured
from benchmarks.figures import Row, median_of, merged
from benchmarks.messages import CopyFloor, CopyResult
from benchmarks.processes import run

# The form of bare COPY that the wanted ratios were set against: 129,000 rows/s on two cores.
COPY_ROWS = 1_000
COPY_CONNECTIONS = 1
ROWS_PREPARED = 20_000


def load_row(name: str, measured: Sequence[Measured], floors: Sequence[float]) -> Row:
    """The medians over all rounds."""
    results = [each.result for each in measured]
    return Row(
        name,
        median_of(results, lambda result: result.events_per_s),
        "events/s",
        median(floors) if floors else None,
        median_of(results, lambda result: result.p50_ms),
        median_of(results, lambda result: result.p99_ms),
        merged([each.micros for each in measured]),
    )


def copy_floor(bench: Bench, metric: str) -> CopyFloor:
    """A bare COPY of the stored events of `metric`."""
    return CopyFloor(
        database_url=bench.stack.connection.databases["ingest"],
        metric=metric,
        connections=COPY_CONNECTIONS,
        rows_per_copy=COPY_ROWS,
        rows_prepared=ROWS_PREPARED,
        measure_s=bench.plan.floor_s,
    )


def run_copy(floor: CopyFloor) -> float:
    """Rows/s of a bare COPY."""
    return run("benchmarks.floors.copy", floor, CopyResult).rows_per_s
