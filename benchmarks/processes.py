"""The benchmark's own processes: generators that answer once, servers that stay for a while.

What they need, secrets too, goes by stdin, never by the command line.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from benchmarks.errors import BenchmarkError
from benchmarks.messages import Listening

ROOT = Path(__file__).resolve().parent.parent
RUN_S_MAX = 3_600.0  # 20 million events on a slow machine
STOP_S_MAX = 10.0

Result = TypeVar("Result")


class Running:
    """A process that was started and will answer once; leaving the `with` block ends it."""

    def __init__(self, module: str, config: msgspec.Struct) -> None:
        self._module = module
        self._popen = start(module)
        assert self._popen.stdin is not None
        # Its end is what the process waits for before it begins.
        self._popen.stdin.write(msgspec.json.encode(config))
        self._popen.stdin.close()
        self._popen.stdin = None

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_error: object) -> None:
        self._popen.kill()
        self._popen.wait()

    def ended_within(self, seconds: float) -> bool:
        """Wait for its end, without taking its answer (a short one, that fits into a pipe)."""
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def result(self, kind: type[Result]) -> Result:
        """Wait for its answer; BenchmarkError when it fails."""
        output, _ = self._popen.communicate(timeout=RUN_S_MAX)
        if self._popen.returncode:
            raise BenchmarkError(f"{self._module} ended with exit code {self._popen.returncode}")
        return msgspec.json.decode(output, type=kind)


def run(module: str, config: msgspec.Struct, kind: type[Result]) -> Result:
    """Run a process and return its answer; BenchmarkError when it fails."""
    with Running(module, config) as running:
        return running.result(kind)


@contextmanager
def serving(module: str, config: msgspec.Struct) -> Iterator[int]:
    """A server for as long as the `with` block lasts; its port on 127.0.0.1."""
    popen = start(module)
    try:
        assert popen.stdin is not None
        assert popen.stdout is not None
        popen.stdin.write(msgspec.json.encode(config) + b"\n")
        popen.stdin.flush()
        line = popen.stdout.readline()
        if not line:
            raise BenchmarkError(f"{module} ended before it served")
        yield msgspec.json.decode(line, type=Listening).port
        popen.communicate(timeout=STOP_S_MAX)
    finally:
        popen.kill()
        popen.wait()


def start(module: str) -> "subprocess.Popen[bytes]":
    """Start `python -m module` with pipes; its errors go where ours go."""
    return subprocess.Popen(
        [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
