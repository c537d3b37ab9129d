"""The options of `usageflow import`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cli.importing.limits import BATCH_LINES_MAX, IN_FLIGHT_MAX
from cli.importing.source import Format


def import_events(
    file: Annotated[
        str, typer.Argument(help="Events as .ndjson, .jsonl or .csv, also .gz; - is a pipe.")
    ],
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
    file_format: Annotated[
        Format | None, typer.Option("--format", help="Default: by the name; of a pipe ndjson.")
    ] = None,
    column_map: Annotated[
        list[str] | None,
        typer.Option(help="COLUMN=FIELD of a CSV, or COLUMN= to leave it out; repeatable."),
    ] = None,
    source: Annotated[
        str,
        typer.Option(help="A name of the data: equal lines without keys of two are two events."),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and send nothing.")] = False,
    rejected: Annotated[
        Path | None,
        typer.Option(help="Gets the lines that were not taken; default: FILE.rejected.ndjson."),
    ] = None,
    batch_lines: Annotated[
        int, typer.Option(min=1, max=BATCH_LINES_MAX, help="Events of a request.")
    ] = 1_000,
    in_flight: Annotated[
        int, typer.Option(min=1, max=IN_FLIGHT_MAX, help="Requests on their way at a time.")
    ] = 4,
    compress: Annotated[
        bool | None,
        typer.Option("--gzip/--no-gzip", help="Default: unless the URL is on this machine."),
    ] = None,
) -> None:
    """Send a file of events. Interrupted and run again, it still bills each event once.

    Exit code 0: all are stored; 1: some were not taken; 2: it stopped before the end.
    """
    # Imported here so that the other commands need not wait for it.
    from rich.console import Console

    from cli.importing import outcome
    from cli.importing.errors import ImportStoppedError
    from cli.importing.importer import Plan
    from cli.importing.source import format_of
    from cli.importing.target import find_target

    errors = Console(stderr=True)
    try:
        plan = Plan(
            path=file,
            format=file_format or format_of(file),
            target=None if dry_run else find_target(url, api_key_file, home, os.environ, compress),
            report_path=outcome.report_path(file, rejected),
            column_map=outcome.column_map(column_map or []),
            source=source,
            batch_lines=batch_lines,
            in_flight=in_flight,
        )
    except ImportStoppedError as error:
        errors.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(outcome.STOPPED) from error
    raise typer.Exit(outcome.import_file(plan, Console(), errors))
