"""python -m tests.chaos [--seed N] [--minutes N]"""

import asyncio
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.chaos.campaign import Plan, Result, run

SEEDS = 1_000_000
SECONDS_A_MINUTE = 60

console = Console(highlight=False, soft_wrap=True, markup=False)


def main(
    seed: Annotated[int, typer.Option(help="0: a random one")] = 0,
    minutes: Annotated[float, typer.Option(min=0.1, max=1_440)] = 10.0,
) -> None:
    """Break everything under load, and show that no acknowledged event is lost or doubled."""
    seed = seed or 1 + secrets.randbelow(SEEDS)
    console.print(f"seed={seed} minutes={minutes:g}")
    home = Path(tempfile.mkdtemp(prefix="usageflow-chaos-"))
    console.print(f"  {home}: journal.ndjson, faults.log, stack/logs")
    result = asyncio.run(run(Plan(seed, minutes * SECONDS_A_MINUTE), home, console))
    tell(result, home)
    sys.exit(0 if result.ok else 1)


def tell(result: Result, home: Path) -> None:
    """What was found, and the line that scripts read; the home stays when anything is wrong."""
    for text in result.findings.texts:
        console.print(f"  {text}")
    if result.ok:
        shutil.rmtree(home)
    else:
        console.print(f"  FAILED: {result.findings}; everything is kept in {home}")
    console.print(str(result))


if __name__ == "__main__":
    typer.run(main)
