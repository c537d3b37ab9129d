"""The results: a table for people, a document for programs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.figures import Row
from benchmarks.processor import SHOWN_MICROS_MIN

LATEST = Path(__file__).resolve().parent / "results" / "latest.json"
DIGITS = 3  # after the point, in the document


def document(machine: dict[str, object], rows: Sequence[Row]) -> dict[str, Any]:
    """What latest.json holds; null where a figure does not apply."""
    return {
        "machine": machine,
        "rows": [
            {
                "name": row.name,
                "value": rounded(row.value),
                "unit": row.unit,
                "floor": rounded(row.floor),
                "ratio": rounded(row.ratio),
                "p50_ms": rounded(row.p50_ms),
                "p99_ms": rounded(row.p99_ms),
                "us_per_event": {part: rounded(micros) for part, micros in row.micros.items()},
            }
            for row in rows
        ],
    }


def rounded(value: float | None) -> float | None:
    """To DIGITS digits."""
    return None if value is None else round(value, DIGITS)


def write(machine: dict[str, object], rows: Sequence[Row]) -> Path:
    """Write latest.json; where it is."""
    LATEST.parent.mkdir(exist_ok=True)
    LATEST.write_text(json.dumps(document(machine, rows), indent=2) + "\n")
    return LATEST


def table(rows: Sequence[Row]) -> Table:
    """The rows for the terminal."""
    shown = Table("row")
    for heading in ("value", "unit", "floor", "ratio", "p50 ms", "p99 ms"):
        shown.add_column(heading, justify="left" if heading == "unit" else "right")
    for row in rows:
        shown.add_row(
            row.name,
            figure(row.value),
            row.unit,
            figure(row.floor),
            "" if row.ratio is None else f"{row.ratio:.2f}",
            figure(row.p50_ms),
            figure(row.p99_ms),
        )
    return shown


def processor_table(rows: Sequence[Row]) -> Table:
    """Processor time an event of each row, by part, for the terminal."""
    measured = [row for row in rows if row.micros]
    parts = [
        part
        for part in dict.fromkeys(part for row in measured for part in row.micros)
        if any(row.micros.get(part, 0.0) >= SHOWN_MICROS_MIN for row in measured)
    ]
    shown = Table("us an event")
    for part in (*parts, "all"):
        shown.add_column(part, justify="right")
    for row in measured:
        each = [figure(row.micros.get(part)) for part in parts]
        shown.add_row(row.name, *each, figure(sum(row.micros.values())))
    return shown


def figure(value: float | None) -> str:
    """Three digits that matter: "23,456", "12.3", "0.45"."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
