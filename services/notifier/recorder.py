"""Writes what came of attempts: all that ended while the last transaction ran, in the next one."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from services.kit.database import Database
from services.kit.errors import UnavailableError
from services.notifier import queue_repository
from services.notifier.health import Health
from services.notifier.queue_repository import Outcome

log = structlog.get_logger()

OUTCOMES_MAX = 500  # in one transaction
# Under load a transaction at most so often: each costs as much as recording a few dozen attempts.
# Nobody waits for it: the place of an attempt is free as soon as the answer has come.
GATHER_S = 0.01
RETRY_DELAY_S = 0.5

_Waiting = tuple[Outcome, Callable[[], None]]


class Recorder:
    """Group commit of outcomes. What waits is bounded by what the worker has claimed."""

    def __init__(self, database: Database, health: Health) -> None:
        self._database = database
        self._health = health
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._begun_s = 0.0  # the last transaction

    def record(self, outcome: Outcome, written: Callable[[], None]) -> None:
        """Call `written` when the outcome is committed (or can't ever be, which is logged)."""
        self._waiting.append((outcome, written))
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            await self._gather()
            count = min(len(self._waiting), OUTCOMES_MAX)
            batch = [self._waiting.popleft() for _ in range(count)]
            if not self._waiting:
                self._wake.clear()
            if batch:
                await self._write(batch)

    async def _gather(self) -> None:
        """Let more come when the last transaction has only just begun."""
        now_s = asyncio.get_running_loop().time()
        early_s = self._begun_s + GATHER_S - now_s
        if early_s > 0:
            await asyncio.sleep(early_s)
        self._begun_s = max(now_s, self._begun_s + GATHER_S)

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        outcomes = [outcome for outcome, _ in batch]
        # Before the attempts are recorded: from then on a delivery may be due again.
        await self._health.note(outcomes)
        while True:
            try:
                async with self._database.transaction() as connection:
                    await queue_repository.record(connection, outcomes)
                break
            except UnavailableError:
                log.warning("attempts_wait_for_database", attempts=len(batch))
                await asyncio.sleep(RETRY_DELAY_S)
            except Exception:
                if len(batch) > 1:
                    for one in batch:
                        await self._write([one])
                    return
                # The lease runs out and the delivery is attempted again.
                log.exception("attempt_not_recorded", delivery_id=outcomes[0].claim.delivery_id)
                break
        for _, written in batch:
            written()
