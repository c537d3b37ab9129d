"""The options of `usageflow audit`."""

import asyncio
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.errors import StackError

app = typer.Typer(help="Checks of what is billed.", no_args_is_help=True)

QUARTER_S = 15 * 60
DIFFERENT, STOPPED = 1, 2
_FORMATS = ["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M%z", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M"]
_FORMATS += ["%Y-%m-%d"]


class Mode(StrEnum):
    """Whose events."""

    LIVE = "live"
    TEST = "test"
    BOTH = "both"


@app.callback()
def audits() -> None:
    """Checks of what is billed."""


@app.command("usage")
def usage_command(
    org: Annotated[
        str, typer.Option(help="The organization, org_...; default: the first one of the home.")
    ] = "",
    start: Annotated[
        datetime | None,
        typer.Option("--from", formats=_FORMATS, help="In UTC; default: start of this month."),
    ] = None,
    end: Annotated[
        datetime | None, typer.Option("--to", formats=_FORMATS, help="In UTC; default: now.")
    ] = None,
    mode: Annotated[Mode, typer.Option(help="Real data, trial data, or both.")] = Mode.BOTH,
    metric: Annotated[
        list[str] | None, typer.Option(help="Only this metric; repeatable; else all.")
    ] = None,
    home: Annotated[
        Path,
        typer.Option(
            envvar="USAGEFLOW_HOME",
            help="Of a stack that runs here; else USAGEFLOW_INGEST_ADDRESS, "
            "USAGEFLOW_AGGREGATOR_ADDRESS and USAGEFLOW_INTERNAL_TOKEN.",
        ),
    ] = Path(".usageflow"),
) -> None:
    """Count usage anew from the raw events, hour by hour and customer by customer, and compare.

    Exit code 0: it is the same; 1: there are differences; 2: it could not be told.
    """
    from rich.console import Console

    from cli.auditing.report import report
    from cli.auditing.run import run

    now = datetime.now(UTC)
    first = _utc(start) or now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    last = _utc(end) or _next_quarter(now)
    if first >= last:
        raise typer.BadParameter("--from must be before --to")
    try:
        outcomes = asyncio.run(run(home, org, mode.value, first, last, metric or []))
    except StackError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(STOPPED) from error
    report(outcomes, Console())
    if any(outcome.difference_count for outcome in outcomes.values()):
        raise typer.Exit(DIFFERENT)
    if any(outcome.undecided for outcome in outcomes.values()):
        raise typer.Exit(STOPPED)


@app.command("invoices")
def invoices_command(
    org: Annotated[
        str, typer.Option(help="The organization, org_...; default: the first one of the home.")
    ] = "",
    start: Annotated[
        datetime | None,
        typer.Option("--from", formats=_FORMATS, help="Finalized from then on; default: all."),
    ] = None,
    end: Annotated[
        datetime | None,
        typer.Option("--to", formats=_FORMATS, help="Finalized before; default: until now."),
    ] = None,
    mode: Annotated[Mode, typer.Option(help="Real data, trial data, or both.")] = Mode.BOTH,
    home: Annotated[
        Path,
        typer.Option(
            envvar="USAGEFLOW_HOME",
            help="Of a stack that runs here; else USAGEFLOW_INGEST_ADDRESS, "
            "USAGEFLOW_AGGREGATOR_ADDRESS, USAGEFLOW_INVOICER_ADDRESS and "
            "USAGEFLOW_INTERNAL_TOKEN.",
        ),
    ] = Path(".usageflow"),
) -> None:
    """Follow the chain of all invoices and credit notes, and work out each line of those that were
    finalized in the range anew, from the plan and the raw events.

    Exit code 0: all is as it has to be; 1: there are differences; 2: it could not be told, for
    example because raw events were dropped.
    """
    from rich.console import Console

    from cli.auditing.invoices.report import report_invoices
    from cli.auditing.run import run_invoices

    first = _utc(start) or datetime(1970, 1, 1, tzinfo=UTC)
    last = _utc(end) or datetime.now(UTC) + timedelta(days=1)
    if first >= last:
        raise typer.BadParameter("--from must be before --to")
    try:
        outcomes = asyncio.run(run_invoices(home, org, mode.value, first, last))
    except StackError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(STOPPED) from error
    report_invoices(outcomes, Console())
    if any(outcome.problem_count for outcome in outcomes.values()):
        raise typer.Exit(DIFFERENT)
    if any(outcome.undecided or outcome.dropped for outcome in outcomes.values()):
        raise typer.Exit(STOPPED)


def _utc(time: datetime | None) -> datetime | None:
    if time is None or time.tzinfo is None:
        return time and time.replace(tzinfo=UTC)
    return time.astimezone(UTC)


def _next_quarter(now: datetime) -> datetime:
    hour = now.replace(minute=0, second=0, microsecond=0)
    past_s = (now - hour) // timedelta(seconds=1)
    return hour + timedelta(seconds=(past_s // QUARTER_S + 1) * QUARTER_S)
