"""A progress bar on standard error, when somebody looks at it."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cli.importing.report import Report
from cli.importing.source import Source


class ProgressBar:
    """A Progress (importer.py) that rich draws; nothing on what is no terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def begin(self, source: Source) -> None:
        """The file is open."""
        self._progress.update(self._task, total=source.size_bytes)

    def show(self, position_bytes: int, report: Report) -> None:
        """So much of the file was answered."""
        totals = report.totals
        text = f"{totals.accepted:,} accepted"
        for count, what in (
            (totals.duplicates, "duplicates"),
            (totals.conflicts, "conflicts"),
            (totals.rejected, "rejected"),
        ):
            if count:
                text += f", {count:,} {what}"
        self._progress.update(self._task, completed=position_bytes, description=text)

    def wait(self, why: str) -> None:
        """Nothing goes on for a moment."""
        self._progress.update(self._task, description=escape(why))
