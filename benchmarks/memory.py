"""How much memory a stack uses: the proportional set size of its processes.

PSS (Linux, Documentation/filesystems/proc.rst) counts a shared page once over all who share it, so
that PostgreSQL's shared memory and forked code are not counted again for every process.
"""

import contextlib
from pathlib import Path

import psutil

KB_PER_MB = 1024


def size_kb(text: str, field: str) -> int:
    """The line "<field>: <n> kB" of a file in /proc; ValueError when there is none."""
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0])
    raise ValueError(f"no line {field}:")


def tree_pss_mb(pid: int) -> float:
    """MB of a process and all that descend from it; what ends meanwhile counts nothing."""
    root = psutil.Process(pid)
    total_kb = 0
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total_kb += size_kb(Path(f"/proc/{process.pid}/smaps_rollup").read_text(), "Pss")
    return total_kb / KB_PER_MB


def peak_rss_mb(pid: int) -> float:
    """The most MB that a process ever had resident."""
    return size_kb(Path(f"/proc/{pid}/status").read_text(), "VmHWM") / KB_PER_MB
