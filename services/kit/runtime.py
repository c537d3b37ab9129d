"""The life of a process: start in order, run, stop in reverse order within a bounded time."""

import asyncio
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any

import structlog
import uvloop
from prometheus_client import start_http_server

from services.kit import faults
from services.kit.logging import configure_logging
from services.kit.settings import ProcessSettings

log = structlog.get_logger()

RESTART_DELAY_S = 0.2
RESTART_DELAY_MAX_S = 5.0
PIPE_READ_BYTES = 1024
# Python looks for cycles after so many new objects (700 otherwise). Events are made and dropped by
# the thousand and are no cycles: looking each time took 4 % of ingest's time.
GARBAGE_OBJECTS_MAX = 20_000


class Runtime:
    """Holds what a process has started; leaving the `async with` block stops it."""

    def __init__(self, name: str, settings: ProcessSettings) -> None:
        self._name = name
        self._settings = settings
        self._stops: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._stopping = asyncio.Event()

    async def __aenter__(self) -> "Runtime":
        configure_logging(self._name, self._settings.log_level)
        faults.install()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        if pipe := os.environ.get("USAGEFLOW_PARENT_PIPE_FD"):
            loop.add_reader(int(pipe), self._on_parent_pipe, int(pipe))
        if listen := self._settings.metrics_listen:
            host, _, port = listen.rpartition(":")
            server, _thread = start_http_server(int(port), host)
            self.on_stop("metrics", _in_thread(server.shutdown))
        log.info("starting")
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        log.info("stopping")
        try:
            async with asyncio.timeout(self._settings.shutdown_s):
                for name, stop in reversed(self._stops):
                    await self._stop_one(name, stop)
        except TimeoutError:
            log.error("stopped_late", shutdown_s=self._settings.shutdown_s)  # noqa: TRY400
        log.info("stopped")

    async def _stop_one(self, name: str, stop: Callable[[], Awaitable[None]]) -> None:
        try:
            await stop()
        except Exception:
            log.exception("stop_failed", part=name)

    def _on_parent_pipe(self, pipe: int) -> None:
        if not os.read(pipe, PIPE_READ_BYTES):
            log.warning("supervisor_gone")
            asyncio.get_running_loop().remove_reader(pipe)
            self.stop()

    def stop(self) -> None:
        """Begin to stop."""
        self._stopping.set()

    async def wait(self) -> None:
        """Return when the process is asked to stop."""
        # What was made up to here lives as long as the process: no collection needs to look at it.
        gc.freeze()
        gc.set_threshold(GARBAGE_OBJECTS_MAX)
        gc.enable()  # see lean_imports
        log.info("ready")
        await self._stopping.wait()

    def on_stop(self, name: str, stop: Callable[[], Awaitable[None]]) -> None:
        """Call `stop` at the end; what was added last is stopped first."""
        self._stops.append((name, stop))

    def spawn(self, name: str, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `loop` in the background until the end; when it raises it is run again."""
        task = asyncio.create_task(_supervised(name, loop), name=name)

        async def cancel() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.on_stop(name, cancel)


async def _supervised(name: str, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
    delay_s = RESTART_DELAY_S
    while True:
        started_s = asyncio.get_running_loop().time()
        try:
            await loop()
        except Exception:
            log.exception("loop_failed", loop=name)
        else:
            log.error("loop_ended", loop=name)
        if asyncio.get_running_loop().time() - started_s > RESTART_DELAY_MAX_S:
            delay_s = RESTART_DELAY_S
        await asyncio.sleep(delay_s)
        delay_s = min(delay_s * 2, RESTART_DELAY_MAX_S)


def _in_thread(stop: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        await asyncio.to_thread(stop)

    return run


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a process's `main` on uvloop."""
    uvloop.run(main())
