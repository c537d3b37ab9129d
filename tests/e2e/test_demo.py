"""`usageflow demo` plays the whole billing flow and exits 0; it fails when a figure is off."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli import demo
from cli.connection import Connection
from cli.demo import Demo, WrongFigureError
from cli.home import Home
from cli.play import clear, play
from cli.stack import ROOT

DEMO_S = 120


def test_demo_exits_with_0(tmp_path: Path) -> None:
    completed = subprocess.run(
        [sys.executable, "-m", "cli", "demo"],
        cwd=ROOT,
        env={**os.environ, "USAGEFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=DEMO_S,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "120.03 USD" in completed.stdout
    assert "every figure is right" in completed.stdout


def test_demo_deletes_nothing_but_an_earlier_demo(tmp_path: Path) -> None:
    mine = tmp_path / "demo" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("precious")
    assert play(mine.parent, None) == 1
    assert mine.read_text() == "precious"


def test_demo_leaves_a_running_one_alone(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    with Home(home).locked(lambda: None):
        (home / "secrets.json").write_text("{}")
        assert play(home, None) == 1
        assert (home / "secrets.json").exists()


def test_second_demo_clears_the_first(tmp_path: Path) -> None:
    with Home(tmp_path).locked(lambda: None):
        (tmp_path / "postgres").mkdir()
        (tmp_path / "secrets.json").write_text("{}")
    clear(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["lock"]


def test_demo_notices_a_wrong_figure(
    stack: Connection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    wrong = {**demo.WANTED_AMOUNTS, "user_123": "120.02"}
    monkeypatch.setattr(demo, "WANTED_AMOUNTS", wrong)
    with pytest.raises(WrongFigureError):
        Demo(stack.http, stack.api_key, Console()).play()
