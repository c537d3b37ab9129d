"""The checker of the fault campaign can fail: it finds each deliberate bug (kit/faults.py)."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from services.kit import faults
from services.kit.faults import Fault
from tests.chaos.campaign import Plan, Result, run
from tests.chaos.findings import Problem
from tests.chaos.schedule import Kind, Planned

SEED = 1
DURATION_S = 7.0
SETTLE_S = 60.0
COMMAND_S_MAX = 150.0

pytestmark = pytest.mark.chaos


def seeded(fault: Fault) -> dict[str, str]:
    return {faults.NAME: fault, faults.ALLOWED: "1"}


def campaign(fault: Fault, home: Path, *schedule: Planned) -> Result:
    """What a short campaign with this bug and these faults comes to."""
    plan = Plan(SEED, DURATION_S, schedule, seeded(fault), voids=False, settle_s=SETTLE_S)
    return asyncio.run(run(plan, home, Console()))


def test_answer_before_commit_is_found(tmp_path: Path) -> None:
    """What is answered while PostgreSQL hangs is only in the memory of ingest, and dies there."""
    result = campaign(
        Fault.ACK_BEFORE_COMMIT,
        tmp_path,
        Planned(2.0, Kind.STOP, "postgres", seconds=2.0),
        Planned(3.0, Kind.KILL, "ingest"),
        Planned(3.0, Kind.KILL, "ingest-2"),
    )
    assert result.findings.events[Problem.NOT_STORED] > 0


def test_inbox_that_is_off_is_found(tmp_path: Path) -> None:
    result = campaign(
        Fault.INBOX_OFF, tmp_path, *(Planned(at_s, Kind.REDELIVER, "nats") for at_s in (3.0, 5.0))
    )
    assert result.findings.events[Problem.COUNTED_TWICE] > 0
    assert result.findings.lost == 0


def test_dropped_outbox_row_is_found(tmp_path: Path) -> None:
    """What is committed while NATS is away is in the outbox only."""
    result = campaign(
        Fault.DROPPED_OUTBOX_ROW,
        tmp_path,
        *(Planned(at_s, Kind.WIPE, "nats") for at_s in (2.0, 4.0, 6.0)),
    )
    assert result.findings.events[Problem.NOT_COUNTED] > 0
    assert result.findings.events[Problem.NOT_STORED] == 0
    assert result.findings.doubled == 0


def test_ignored_conflict_is_found_and_the_command_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--seed", str(SEED), "--minutes", "0.1"]
    environ = {**os.environ, **seeded(Fault.IGNORED_CONFLICT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        command,
        env=environ,
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=COMMAND_S_MAX,
        check=False,
    )
    first, *told, last = done.stdout.splitlines()
    assert done.returncode == 1, done.stdout + done.stderr
    assert first == f"seed={SEED} minutes=0.1"
    assert any("another content is stored" in line for line in told)
    figures = re.fullmatch(r"seed=1 kills=\d+ acknowledged=\d+ lost=(\d+) doubled=0", last)
    assert figures is not None, last
    assert int(figures[1]) > 0
