import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import results
from benchmarks.figures import Row

ROWS = [
    Row("http_single_64", 6_000.12345, "events/s", 24_000.0, 9.87654, 30.0, {"ingest": 12.3456}),
    Row("idle_memory_mb", 512.5, "MB"),
]


def test_the_document_has_the_promised_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "LATEST", tmp_path / "results" / "latest.json")
    written = results.write({"cores": 2}, ROWS)
    assert json.loads(written.read_text()) == {
        "machine": {"cores": 2},
        "rows": [
            {
                "name": "http_single_64",
                "value": 6000.123,
                "unit": "events/s",
                "floor": 24000.0,
                "ratio": 0.25,
                "p50_ms": 9.877,
                "p99_ms": 30.0,
                "us_per_event": {"ingest": 12.346},
            },
            {
                "name": "idle_memory_mb",
                "value": 512.5,
                "unit": "MB",
                "floor": None,
                "ratio": None,
                "p50_ms": None,
                "p99_ms": None,
                "us_per_event": {},
            },
        ],
    }


def test_the_table_shows_every_row() -> None:
    shown = io.StringIO()
    Console(file=shown, width=120).print(results.table(ROWS))
    assert "6,000" in shown.getvalue()
    assert "0.25" in shown.getvalue()
    assert "idle_memory_mb" in shown.getvalue()


def test_the_processor_table_shows_what_parts_cost_in_each_row_that_was_measured() -> None:
    rows = [*ROWS, Row("soak", 1.0, "events/s", micros={"ingest": 20.0, "gateway": 30.0})]
    shown = io.StringIO()
    Console(file=shown, width=120).print(results.processor_table(rows))
    lines = shown.getvalue().splitlines()
    assert "idle_memory_mb" not in shown.getvalue()
    assert [line for line in lines if "soak" in line and "30.0" in line and "50.0" in line]


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (23456.7, "23,457"), (12.34, "12.3"), (0.456, "0.46")]
)
def test_figures_show_the_digits_that_matter(value: float | None, text: str) -> None:
    assert results.figure(value) == text
