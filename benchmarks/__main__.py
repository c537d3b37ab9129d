"""python -m benchmarks"""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from benchmarks import machine, profiles, results
from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Row
from benchmarks.fresh import fresh_bench
from benchmarks.loads import LOADS
from benchmarks.plan import FULL, PROFILE, QUICK
from benchmarks.rows import LONG, ROWS
from cli.errors import StackError

WIDTH_MIN = 130  # of the tables, also where the terminal is narrower or none

console = Console(highlight=False, soft_wrap=True)
console.width = max(console.width, WIDTH_MIN)


def report(line: str) -> None:
    """Tell what goes on."""
    console.print(f"  {escape(line)}")


def run_rows(bench: Bench, names: list[str]) -> tuple[list[Row], list[str]]:
    """The rows, and what went wrong with those that are missing."""
    rows: list[Row] = []
    problems = []
    for name in names:
        console.print(f"[bold]{name}[/bold]")
        try:
            rows.extend(ROWS[name](bench, name))
        except BenchmarkError as error:
            console.print(f"  [red]{escape(str(error))}[/red]")
            problems.append(f"{name}: {error}")
    return rows, problems


def profile(name: str) -> None:
    """Run one load under py-spy; show what costs most, and where the stacks are."""
    directory = Path(tempfile.mkdtemp(prefix="usageflow-profile-"))
    with fresh_bench(PROFILE, report) as bench:
        load = bench.load(name)
        bench.warm_up(load)
        with bench.start(load) as running:
            time.sleep(load.warm_up_s)
            recording = profiles.start_profilers(
                bench.stack.connection.pids, directory, load.measure_s - load.warm_up_s
            )
            found = [(each.name, profiles.costs(each.finish())) for each in recording]
            bench.finish(running, load)
    for part, costs in found:
        console.print(profiles.table(part, costs))
    console.print(f"collapsed stacks (for speedscope, flamegraph.pl): {directory}/*.collapsed")


def bench_all(quick: bool, names: list[str]) -> list[str]:
    """Run the rows and write the results; what went wrong."""
    begun_s = time.monotonic()
    description = machine.describe(quick=quick)
    console.print(
        f"{description['cpu']}, {description['cores']} cores,"
        f" {description['busy_before_percent']} % busy before we begin"
    )
    with fresh_bench(QUICK if quick else FULL, report) as bench:
        rows, problems = run_rows(bench, names)
    written = results.write(description, rows)
    console.print(results.table(rows))
    console.print(results.processor_table(rows))
    console.print(f"{written} ({time.monotonic() - begun_s:.0f} s)")
    return problems


def main(
    quick: Annotated[bool, typer.Option(help="Shorter: under 3 minutes.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Only this row, repeatable: {', '.join(ROWS)}.")
    ] = None,
    profile_of: Annotated[
        str | None,
        typer.Option("--profile", help=f"Profile one load instead: {', '.join(LOADS)}."),
    ] = None,
) -> None:
    """How fast, how soon, how large; see benchmarks/README.md."""
    names = only or [name for name in ROWS if not (quick and name in LONG)]
    unknown = [name for name in names if name not in ROWS]
    if unknown or (profile_of is not None and profile_of not in LOADS):
        raise typer.BadParameter(f"unknown: {unknown or profile_of}")
    try:
        if profile_of is not None:
            profile(profile_of)
            return
        problems = bench_all(quick, names)
    except (BenchmarkError, StackError) as error:
        problems = [str(error)]
    for problem in problems:
        console.print(f"[red]error:[/red] {escape(problem)}")
    if problems:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
