"""Stacks that are there for the benchmark alone."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.plan import Plan
from benchmarks.stack import MeasuredStack
from cli.files import read_json
from cli.stack import running_stack


@contextmanager
def fresh_bench(
    plan: Plan, report: Callable[[str], None], environ: Mapping[str, str] | None = None
) -> Iterator[Bench]:
    """A stack of its own in a temporary home, which stays when something goes wrong.

    `environ` are settings that differ from the defaults.
    """
    home = Path(tempfile.mkdtemp(prefix="usageflow-benchmark-"))
    report("starting a stack")
    try:
        with running_stack(home, environ=environ) as connection:
            stack = MeasuredStack(connection, read_json(home / "ports.json"))
            try:
                yield Bench(stack, plan, report)
            finally:
                stack.close()
    except BaseException:
        report(f"its logs stay in {home}/logs")
        raise
    shutil.rmtree(home)
