"""Runs an audit of one organization, in the modes that are asked for."""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path

import typer
from usageflow.common.v1 import common_pb2

from cli.auditing.audit import Outcome, audit
from cli.auditing.parts import connected, find_parts
from cli.errors import StackError

MODES = {"live": common_pb2.MODE_LIVE, "test": common_pb2.MODE_TEST}


async def run(
    home: Path,
    organization_id: str,
    mode: str,
    start: datetime,
    end: datetime,
    metrics: Collection[str],
) -> dict[str, Outcome]:
    """The outcome of each mode; `mode` "both": of both. StackError."""
    where = find_parts(home)
    organization_id = organization_id or where.organization_id
    if not organization_id:
        raise StackError("which organization? give its --org")
    outcomes: dict[str, Outcome] = {}
    for name, number in MODES.items():
        if mode not in (name, "both"):
            continue
        async with connected(where, organization_id, number) as parts:
            outcomes[name] = await audit(parts, start, end, metrics, _progress)
    return outcomes


def _progress(metric: str) -> None:
    typer.echo(f"  {metric}", err=True)
