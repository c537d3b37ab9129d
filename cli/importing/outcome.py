"""What became of an import, in words and as an exit code."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from cli.importing.errors import ImportStoppedError
from cli.importing.importer import Plan, run
from cli.importing.progress import ProgressBar
from cli.importing.report import Report, Totals
from cli.importing.source import STDIN

ALL_TAKEN: Final = 0
SOME_NOT_TAKEN: Final = 1
STOPPED: Final = 2
INTERRUPTED: Final = 130
REASONS_SHOWN: Final = 5
_TOO_OLD: Final = "days ago to"


def import_file(plan: Plan, output: Console, errors: Console) -> int:
    """Import a file and tell what became of it; the exit code."""
    report = Report(plan.report_path)
    code = ALL_TAKEN
    seconds = 0.0
    try:
        with ProgressBar(errors) as progress:
            seconds = asyncio.run(run(plan, report, progress))
    except (ImportStoppedError, OSError) as error:
        _say(errors, f"error: {error}")
        code = STOPPED
    except KeyboardInterrupt:
        _say(errors, "interrupted")
        code = INTERRUPTED
    finally:
        report.close()
    totals = report.totals
    _tell_reasons(totals, report, errors)
    if code != ALL_TAKEN and plan.target is not None:
        _say(errors, "Run the same command again to go on: nothing is billed twice.")
    dry = "dry_run=1 " if plan.target is None else ""
    _say(
        output,
        f"{dry}lines={totals.lines} accepted={totals.accepted} duplicates={totals.duplicates}"
        f" conflicts={totals.conflicts} rejected={totals.rejected}"
        + (f" seconds={seconds:.1f}" if code == ALL_TAKEN else " unfinished=1"),
    )
    return code or (SOME_NOT_TAKEN if totals.not_taken else ALL_TAKEN)


def column_map(options: Sequence[str]) -> dict[str, str]:
    """COLUMN=FIELD of each --column-map; ImportStoppedError for anything else."""
    mapping = {}
    for option in options:
        column, equals, target = option.partition("=")
        if not equals or not column.strip():
            raise ImportStoppedError(f"--column-map {option}: must be COLUMN=FIELD")
        mapping[column.strip()] = target.strip()
    return mapping


def report_path(file: str, chosen: Path | None) -> Path:
    """Where the lines go that were not taken; ImportStoppedError: onto the file itself."""
    path = chosen or Path(f"{'stdin' if file == STDIN else file}.rejected.ndjson")
    if path.exists() and file != STDIN and path.samefile(file):
        raise ImportStoppedError(f"--rejected {path}: is the file that is to be imported")
    return path


def _tell_reasons(totals: Totals, report: Report, errors: Console) -> None:
    if not totals.not_taken:
        return
    for reason, count in totals.reasons.most_common(REASONS_SHOWN):
        _say(errors, f"{count:,} x {reason}")
    if any(_TOO_OLD in reason for reason in totals.reasons):
        _say(
            errors,
            "How old events may be is a setting of the organization, up to 400 days:"
            ' PATCH /api/organization {"settings": {"eventPastDays": 400}}',
        )
    _say(errors, f"Each line that was not taken, and why: {report.path}")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
