"""Keeps processes running: starts them, restarts those that die, stops them in order."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cli.children import KILL_WAIT_S, Child, log_tail
from cli.errors import NotReadyError, PartFailedError

QUICK_DEATH_S = 3.0  # a process that lived longer than this is restarted at once
RESTART_DELAY_S = 0.1  # before the second quick restart; doubles with each
RESTART_DELAY_S_MAX = 5.0
START_DEATHS_MAX = 3  # deaths while starting until we give up
READY_S = 60.0
READY_POLL_S = 0.05

STARTED = "started"  # what on_change is told of a start


def restart_delay_s(quick_deaths: int) -> float:
    """Seconds to wait after so many quick deaths in a row: 0, 0, 0.1, 0.2, 0.4, .. 5."""
    if quick_deaths < 2:
        return 0.0
    return min(RESTART_DELAY_S * 2.0 ** min(quick_deaths - 2, 10), RESTART_DELAY_S_MAX)


@dataclass(frozen=True)
class Part:
    """One process to keep running.

    `prepare` runs in a thread before each start and may take its time; `start` returns at once;
    `ready` asks once and raises NotReadyError while the process is not ready.
    """

    name: str
    start: Callable[[], Child]
    ready: Callable[[], Awaitable[None]]
    prepare: Callable[[], None] | None = None
    stop_signal: int = signal.SIGTERM
    stop_s: float = 10.0
    kill_signal: int = signal.SIGKILL


class Keeper:
    """Keeps one part running until stop(); tells `on_change` of every start and unwanted end."""

    def __init__(self, part: Part, on_change: Callable[["Keeper", str], None]) -> None:
        self.part = part
        self.child: Child | None = None
        self.deaths = 0
        self._on_change = on_change
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the running process; None while there is none."""
        return self.child.pid if self.child is not None and self.child.running else None

    def begin(self) -> None:
        """Start the process, and from now on start it again whenever it ends."""
        self._task = asyncio.create_task(self._keep(), name=f"keep-{self.part.name}")

    async def ready(self, timeout_s: float = READY_S) -> None:
        """Wait until it is ready; PartFailedError when it keeps dying or takes longer."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._raise_failure()
            try:
                await self.part.ready()
            except NotReadyError as error:
                if self.deaths >= START_DEATHS_MAX:
                    raise self._failed(f"died {self.deaths} times while starting") from error
                if time.monotonic() > deadline:
                    problem = f"was not ready within {timeout_s:.0f} s ({error})"
                    raise self._failed(problem) from error
                await asyncio.sleep(READY_POLL_S)
            else:
                return

    async def stop(self) -> None:
        """End the process for good: orderly within the part's stop_s, else with SIGKILL."""
        self._stopping = True
        if self.child is not None and self.child.running:
            self.child.popen.send_signal(self.part.stop_signal)
            try:
                async with asyncio.timeout(self.part.stop_s):
                    await self.child.exited()
            except TimeoutError:
                await self._kill(self.child)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def kill(self) -> None:
        """End the process now, as far as that is safe for its data."""
        self._stopping = True
        if self.child is not None and self.child.running:
            self.child.popen.send_signal(self.part.kill_signal)

    async def _kill(self, child: Child) -> None:
        child.popen.send_signal(self.part.kill_signal)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_WAIT_S):
                await child.exited()
        child.popen.kill()

    async def _keep(self) -> None:
        quick_deaths = 0
        while not self._stopping:
            how = await self._run_once()
            if self._stopping:
                return
            self.deaths += 1
            lived_s = self.child.lived_s if self.child is not None else 0.0
            quick_deaths = quick_deaths + 1 if lived_s < QUICK_DEATH_S else 0
            self._on_change(self, how)
            await asyncio.sleep(restart_delay_s(quick_deaths))

    async def _run_once(self) -> str:
        """Start the process, wait for its end; how it ended. Raises what the first start does."""
        try:
            if self.part.prepare is not None:
                await asyncio.to_thread(self.part.prepare)
            child = self.part.start()
        except Exception as error:
            if self.child is None:
                raise
            # Whatever it is (a full disk, no more processes), the next attempt may succeed.
            return f"could not be started: {error}"
        self.child = child
        self._on_change(self, STARTED)
        return ended(await child.exited())

    def _raise_failure(self) -> None:
        """What prepare or start raised, which ends the keeping."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    def _failed(self, problem: str) -> PartFailedError:
        log = self.child.log if self.child is not None else None
        tail = f"; {log}:\n{log_tail(log)}" if log is not None else ""
        return PartFailedError(f"{self.part.name} {problem}{tail}")


def ended(code: int) -> str:
    """How a process ended, in words."""
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
