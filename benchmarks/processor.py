"""Processor time of a stack's parts: what an event costs, however busy others keep the machine."""

import contextlib
from collections.abc import Mapping

import psutil

MICROS_PER_SECOND = 1_000_000


def seconds_by_part(pids: Mapping[str, int]) -> dict[str, float]:
    """Seconds of processor time that each process has used so far, with its children."""
    used = dict.fromkeys(pids, 0.0)
    for part, pid in pids.items():
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            for process in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    used[part] += times.user + times.system
    return used


def micros_by_part(
    before: Mapping[str, float], after: Mapping[str, float], events: int
) -> dict[str, float]:
    """Microseconds an event that each part used in between, most first; without those below 0.5."""
    spent = {
        part: (seconds - before.get(part, 0.0)) * MICROS_PER_SECOND / events
        for part, seconds in after.items()
    }
    ordered = sorted(spent.items(), key=lambda item: item[1], reverse=True)
    return {part: micros for part, micros in ordered if micros >= 0.5}
