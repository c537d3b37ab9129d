"""Child processes: started on a log file, waited for, stopped by pid, never left behind."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

LAUNCHER = Path(__file__).with_name("launcher.py")
LOG_BYTES_MAX = 64 * 1024 * 1024  # a log larger than this moves to <name>.log.1 at the next start
LOG_TAIL_BYTES = 4096
KILL_WAIT_S = 5.0  # how long the kernel may take to end a process after SIGKILL


@dataclass(frozen=True)
class Command:
    """What to run: program and arguments, the whole environment, and inherited descriptors."""

    argv: Sequence[str]
    env: Mapping[str, str]
    pass_fds: Sequence[int] = ()
    cwd: Path | None = None


@dataclass
class Child:
    """A running child process, in a session of its own: a Ctrl-C reaches only us."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    started: float = field(default_factory=time.monotonic)

    @property
    def pid(self) -> int:
        """Process id."""
        return self.popen.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.popen.poll() is None

    @property
    def lived_s(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.started

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call back from a thread as soon as the process has ended."""

        def watch() -> None:
            self.popen.wait()
            callback()

        threading.Thread(target=watch, name=f"watch-{self.name}", daemon=True).start()

    async def exited(self) -> int:
        """Wait for its end; its exit code, or minus the signal's number."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop closed before the process ended
                loop.call_soon_threadsafe(ended.set)

        self.on_exit(tell)
        await ended.wait()
        return self.popen.wait()

    def stop(self, signal_number: int, grace_s: float) -> None:
        """Send the signal; after `grace_s` seconds SIGKILL. Returns when the process is gone."""
        if self.running:
            self.popen.send_signal(signal_number)
        try:
            self.popen.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait(KILL_WAIT_S)


def spawn(name: str, command: Command, log: Path) -> Child:
    """Start a child with its output appended to `log` (0600) and no input."""
    rotate(log)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        popen = subprocess.Popen(  # noqa: S603 - the argv is ours
            list(command.argv),
            env=dict(command.env),
            pass_fds=tuple(command.pass_fds),
            cwd=command.cwd,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    return Child(name, popen, log)


@dataclass(frozen=True)
class RunAs:
    """An unprivileged user, and the capabilities of which it keeps the first that is to be had."""

    user: str
    capabilities: Sequence[str] = ()


def launched(argv: Sequence[str], *, death_signal: int, run_as: RunAs | None = None) -> list[str]:
    """`argv` behind launcher.py: as another user, and (Linux) dying by a signal with its parent.

    The parent is the thread that starts it: let that be one that lives as long as the child may.
    """
    wanted = {
        "user": run_as.user if run_as else None,
        "capabilities": list(run_as.capabilities) if run_as else [],
        "parent_pid": os.getpid(),
        "death_signal": death_signal,
    }
    return [sys.executable, "-I", "-S", str(LAUNCHER), json.dumps(wanted), *argv]


def rotate(log: Path) -> None:
    """Move a log that grew beyond LOG_BYTES_MAX aside, over the one moved before."""
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_name(log.name + ".1"))


def log_tail(log: Path) -> str:
    """The last LOG_TAIL_BYTES of a log, from a line's start."""
    if not log.exists():
        return "(no log)"
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_TAIL_BYTES))
        text = file.read().decode(errors="replace")
    if size > LOG_TAIL_BYTES:
        text = text.partition("\n")[2]
    return text.rstrip() or "(the log is empty)"


def stop_leftover(process: psutil.Process, signal_number: int, grace_s: float) -> None:
    """Stop a process that an earlier supervisor left behind; SIGKILL after `grace_s` seconds."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal_number)
        try:
            process.wait(grace_s)
        except psutil.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait(KILL_WAIT_S)
