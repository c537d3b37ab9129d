"""Where the time goes: py-spy on the processes on an event's way while a row's load runs."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from benchmarks.errors import BenchmarkError

PARTS = ("gateway", "ingest", "aggregator")
SAMPLES_PER_S = 100
FINISH_S_MAX = 60.0
SHOWN_MAX = 25


_line = re.compile(r":\d+\)$")


class Cost(NamedTuple):
    """A function's share of the samples in which Python ran: alone, and with all that it calls."""

    function: str
    alone: float
    whole: float


def start_profilers(pids: Mapping[str, int], directory: Path, seconds: float) -> "list[Profiler]":
    """Record each replica of PARTS for `seconds`; collapsed stacks go into `directory`."""
    return [
        Profiler(name, pid, directory / f"{name}.collapsed", seconds)
        for name, pid in sorted(pids.items())
        if name.rstrip("-0123456789") in PARTS
    ]


class Profiler:
    """A running `py-spy record`."""

    def __init__(self, name: str, pid: int, output: Path, seconds: float) -> None:
        self.name = name
        self.output = output
        self._popen = subprocess.Popen(
            [
                str(Path(sys.executable).with_name("py-spy")),
                *("record", "--pid", str(pid), "--output", str(output), "--format", "raw"),
                *("--duration", str(round(seconds)), "--rate", str(SAMPLES_PER_S), "--gil"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def finish(self) -> str:
        """Wait for its end; the collapsed stacks. BenchmarkError when it recorded nothing."""
        said, _ = self._popen.communicate(timeout=FINISH_S_MAX)
        if self._popen.returncode or not self.output.exists():
            raise BenchmarkError(f"py-spy could not record {self.name}: {said.decode()}")
        return self.output.read_text()


def costs(collapsed: str) -> list[Cost]:
    """Functions by what they cost alone, most first, of lines "name (file:line);leaf .. 12"."""
    alone: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for line in collapsed.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_line.sub(")", frame) for frame in stack.split(";")]
        alone[frames[-1]] += int(count)
        for frame in set(frames):
            whole[frame] += int(count)
    total = sum(alone.values())
    ordered = sorted(whole, key=lambda frame: (alone[frame], whole[frame]), reverse=True)
    return [Cost(frame, alone[frame] / total, whole[frame] / total) for frame in ordered]


def table(name: str, found: list[Cost]) -> Table:
    """The most costly functions of a process."""
    shown = Table("alone", "whole", title=name)
    shown.add_column("function", no_wrap=True)
    for cost in found[:SHOWN_MAX]:
        shown.add_row(f"{cost.alone:.1%}", f"{cost.whole:.1%}", cost.function)
    return shown
