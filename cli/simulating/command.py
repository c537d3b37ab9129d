"""The options of `usageflow simulate`."""

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any

import typer


def simulate(
    plan: Annotated[Path, typer.Argument(help="A JSON file: a plan as POST /api/plans takes it.")],
    from_month: Annotated[str, typer.Option("--from", help="First month, as 2026-01.")],
    to_month: Annotated[str, typer.Option("--to", help="Last month; default: the first one.")] = "",
    plan_id: Annotated[
        str, typer.Option("--plan", help="Only subscriptions that are now on this plan, plan_...")
    ] = "",
    customer: Annotated[
        list[str] | None, typer.Option(help="A customer's id; repeatable; default: all.")
    ] = None,
    json_lines: Annotated[
        bool, typer.Option("--json", help="Print the answer's JSON lines as they come.")
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(envvar="USAGEFLOW_URL", help="Of the HTTP API; default: HOME's stack."),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Default: USAGEFLOW_API_KEY, or the key of HOME's stack.")
    ] = None,
    home: Annotated[
        Path, typer.Option(envvar="USAGEFLOW_HOME", help="Of a stack that runs here.")
    ] = Path(".usageflow"),
) -> None:
    """Tell what past months would have cost with a plan. Nothing is written.

    Shows the customers whose amounts change most, and the totals. Exit code 1: it can't be told.
    """
    # Imported here so that the other commands need not wait for it.
    from rich.console import Console

    from cli.importing.errors import ImportStoppedError
    from cli.importing.target import find_target
    from cli.simulating.run import SimulationError, read_plan, run

    errors = Console(stderr=True)
    try:
        asked: dict[str, Any] = {
            "plan": read_plan(plan),
            "from": from_month,
            "to": to_month or from_month,
            "planId": plan_id,
            "customerIds": customer or [],
        }
        target = find_target(url, api_key_file, home, os.environ, compress=False)
        asyncio.run(run(target, asked, Console(), errors, json_lines=json_lines))
    except (ImportStoppedError, SimulationError) as error:
        errors.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
