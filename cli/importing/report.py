"""What became of the lines: the totals, and a file with those that were not taken and why."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import msgspec

from cli.importing.batches import Batch
from cli.importing.lines import Line
from cli.importing.sender import Answer

CONFLICT: Final = "CONFLICT"
REJECTED: Final = "REJECTED"
REASONS_MAX: Final = 100
_TAKEN: Final = frozenset(("ACCEPTED", "DUPLICATE"))


@dataclass
class Totals:
    """How many lines became what; `reasons` are those of lines that were not taken."""

    accepted: int = 0
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def lines(self) -> int:
        """All that were answered, or refused here."""
        return self.accepted + self.duplicates + self.conflicts + self.rejected

    @property
    def not_taken(self) -> int:
        """Those that will not be billed as they are."""
        return self.conflicts + self.rejected


class _NotTaken(msgspec.Struct):
    line: int
    status: str
    error: str
    event: str


class Report:
    """Adds up, and writes each line that was not taken to `path`, as JSON.

    The file is made anew with the first such line: without any there is none afterwards.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.totals = Totals()
        self._file: IO[bytes] | None = None
        path.unlink(missing_ok=True)

    def add(self, batch: Batch, answer: Answer | None) -> None:
        """A batch that was answered; None: none of its lines was sent."""
        for line in batch.refused:
            self._not_taken(line, REJECTED, line.problem)
        self.totals.rejected += len(batch.refused)
        if answer is None:
            return
        self.totals.accepted += answer.accepted
        self.totals.duplicates += answer.duplicates
        self.totals.conflicts += answer.conflicts
        self.totals.rejected += answer.rejected
        if answer.conflicts or answer.rejected:
            for line, result in zip(batch.lines, answer.results, strict=True):
                if result.status not in _TAKEN:
                    self._not_taken(line, result.status, result.error or "")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _not_taken(self, line: Line, status: str, error: str) -> None:
        reasons = self.totals.reasons
        known = error in reasons or len(reasons) < REASONS_MAX
        reasons[error if known else "other reasons"] += 1
        if self._file is None:
            self._file = self.path.open("wb")
        event = line.event.decode("utf-8", "replace")
        self._file.write(msgspec.json.encode(_NotTaken(line.number, status, error, event)) + b"\n")
