"""A whole stack for as long as a `with` block lasts: for tests, benchmarks and the demo."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cli.children import Child, Command, log_tail, spawn
from cli.connection import Connection, read_connection
from cli.errors import StackError
from cli.files import private_directory
from cli.ports import free_port

START_S = 90.0
STOP_S = 30.0  # `up` itself stops within 25 s
POLL_S = 0.02
ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def running_stack(
    home: Path,
    *,
    http_port: int | None = None,
    environ: Mapping[str, str] | None = None,
    start_s: float = START_S,
) -> Iterator[Connection]:
    """Run `usageflow up` in `home` meanwhile; its output goes to home/up.log.

    `http_port` is a free one unless given; `environ` is added to our own environment. StackError
    with the end of up.log when the stack does not come up within `start_s` seconds.
    """
    child = start_stack(home, http_port=http_port, environ=environ)
    try:
        yield wait_for_stack(home, child, start_s)
    finally:
        child.stop(signal.SIGINT, STOP_S)


def start_stack(
    home: Path, *, http_port: int | None = None, environ: Mapping[str, str] | None = None
) -> Child:
    """Start `usageflow up` in a session of its own, without waiting for it.

    It stops when the thread that called this has died, so that a killed test leaves no stack.
    """
    private_directory(home)
    options = ["--home", str(home), "--http-port", str(http_port or free_port())]
    return spawn(
        "up",
        Command(
            argv=[sys.executable, "-m", "cli", "up", "--stop-with-parent", *options],
            env={**os.environ, **(environ or {})},
            cwd=ROOT,
        ),
        home / "up.log",
    )


def wait_for_stack(home: Path, child: Child, start_s: float = START_S) -> Connection:
    """The connection as soon as everything answers; StackError when it ends or takes longer."""
    deadline = time.monotonic() + start_s
    while True:
        connection = read_connection(home / "connection.json")
        # One left behind by a killed supervisor names another process.
        if connection is not None and connection.supervisor_pid == child.pid:
            return connection
        try:
            code = child.popen.wait(POLL_S)
        except subprocess.TimeoutExpired:
            if time.monotonic() < deadline:
                continue
            problem = f"was not up within {start_s:.0f} s"
        else:
            problem = f"ended with exit code {code}"
        raise StackError(f"usageflow up {problem}; {child.log}:\n{log_tail(child.log)}")
