"""Processor time: what an event costs each part, and how much others on the machine have used."""

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

MICROS_PER_SECOND = 1_000_000
SHOWN_MICROS_MIN = 0.5


@dataclass(frozen=True)
class Used:
    """What was used in a while: microseconds an event by part, and cores that were not ours."""

    micros: Mapping[str, float]
    others_cores: float

    def __str__(self) -> str:
        parts = sorted(self.micros.items(), key=lambda item: item[1], reverse=True)
        shown = [f"{part} {micros:.1f}" for part, micros in parts if micros >= SHOWN_MICROS_MIN]
        return f"us an event: {', '.join(shown)}; others used {self.others_cores:.2f} cores"


class Meter:
    """Measures from its making on. `pids` are a stack's processes by the part's name."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._begun_s = time.perf_counter()
        self._parts_s = {part: tree_seconds(pid) for part, pid in pids.items()}
        self._all_s = busy_seconds()
        self._own_s = own_seconds()

    def used(self, events: int) -> Used:
        """What was used since, for `events` events."""
        micros = {
            part: (tree_seconds(pid) - self._parts_s[part]) * MICROS_PER_SECOND / events
            for part, pid in self._pids.items()
        }
        others_s = (busy_seconds() - self._all_s) - (own_seconds() - self._own_s)
        return Used(micros, max(others_s, 0.0) / (time.perf_counter() - self._begun_s))


def tree_seconds(pid: int) -> float:
    """Seconds that a process and all that descend from it have used so far."""
    total_s = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total_s += times.user + times.system
    return total_s


def own_seconds() -> float:
    """Seconds that this process and all that descend from it used, the ended ones included."""
    ended = os.times()
    return tree_seconds(os.getpid()) + ended.children_user + ended.children_system


def busy_seconds() -> float:
    """Seconds that all cores together were at work so far, for anybody."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)
