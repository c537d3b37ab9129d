"""Looks for periods that are over, for as long as the process runs; any number of replicas may."""

import asyncio

import structlog

from services.invoicer.advancer import Advancer
from services.invoicer.closer import Closer
from services.kit.errors import UnavailableError
from services.kit.waiting import happens

log = structlog.get_logger()


class Scheduler:
    """Closes chunk after chunk and moves test clocks on while there is work, then waits to be
    woken, or a little while.

    Other replicas find what was made here by looking: the look is one cheap query over an index.
    """

    def __init__(self, closer: Closer, poll_s: float, advancer: Advancer | None = None) -> None:
        self._closer = closer
        self._advancer = advancer
        self._poll_s = poll_s
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There may be a period that is over."""
        self._wake.set()

    async def run(self) -> None:
        """Close periods until cancelled."""
        while True:
            self._wake.clear()
            try:
                while await self._closer.close_chunk() or await self._advance():
                    pass
                await self._closer.measure()
            except UnavailableError as error:
                log.debug("scheduler_waits", error=error.message)
            await happens(self._wake, self._poll_s)

    async def _advance(self) -> int:
        return 0 if self._advancer is None else await self._advancer.advance()
