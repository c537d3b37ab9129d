"""Carries out the faults of a schedule, each at its time, whatever the others are doing."""

import asyncio
import random
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

import nats.errors
import psutil

from tests.chaos.redelivery import Redelivery
from tests.chaos.schedule import KILLS, Kind, Planned
from tests.chaos.stack import ChaosStack

REDELIVERY_ATTEMPTS_MAX = 20
REDELIVERY_PAUSE_S = 0.5


class Injector:
    """Does what is planned and counts it."""

    def __init__(self, stack: ChaosStack, seed: int, log: TextIO) -> None:
        self._stack = stack
        self._seed = seed
        self._log = log
        self._redelivery = Redelivery(stack.nats.server.url)
        self.kills = 0
        self.redelivered = 0

    async def run(self, planned: Sequence[Planned]) -> None:
        """Carry out all; returns when the last is over and nothing is stopped any more."""
        async with asyncio.TaskGroup() as faults:
            for fault in planned:
                faults.create_task(self._at_its_time(fault))

    async def _at_its_time(self, fault: Planned) -> None:
        await asyncio.sleep(fault.at_s)
        done = await self._do(fault)
        self.kills += done and fault.kind in KILLS
        self._log.write(f"{fault}{'' if done else ': NOT DONE, it was not there'}\n")
        self._log.flush()

    async def _do(self, fault: Planned) -> bool:
        match fault.kind:
            case Kind.KILL:
                return await self._kill(fault.target)
            case Kind.KILL_BACKEND:
                return await self._kill_backend(fault.number)
            case Kind.WIPE:
                self._stack.nats.wipe = True
                return await self._kill("nats")
            case Kind.STOP:
                return await self._stop(fault.target, fault.seconds)
            case Kind.CUT:
                self._stack.proxies[fault.target].cut()
            case Kind.LOSE_ANSWER:
                self._stack.proxies[fault.target].lose_next_answer()
            case Kind.REDELIVER:
                return await self._redeliver(random.Random(f"{self._seed}/{fault.number}"))
        return True

    async def _kill(self, name: str) -> bool:
        process = await self._stack.live(name)
        if process is None:
            return False
        return _signal(process, signal.SIGKILL)

    async def _kill_backend(self, number: int) -> bool:
        server = await self._stack.live("postgres")
        if server is None:
            return False
        with suppress(psutil.NoSuchProcess):
            if backends := server.children():
                return _signal(backends[number % len(backends)], signal.SIGKILL)
        return False

    async def _stop(self, name: str, seconds: float) -> bool:
        """Stop a process, with its children: a server hangs as a whole."""
        process = await self._stack.live(name)
        if process is None:
            return False
        stopped = []
        with suppress(psutil.NoSuchProcess):
            stopped = [process, *process.children(recursive=True)]
        stopped = [each for each in stopped if _signal(each, signal.SIGSTOP)]
        try:
            await asyncio.sleep(seconds)
        finally:
            for each in stopped:
                _signal(each, signal.SIGCONT)
        return bool(stopped)

    async def _redeliver(self, rng: random.Random) -> bool:
        for _attempt in range(REDELIVERY_ATTEMPTS_MAX):
            try:
                self.redelivered += await self._redelivery(rng)
            except (OSError, nats.errors.Error, TimeoutError):
                await asyncio.sleep(REDELIVERY_PAUSE_S)
            else:
                return True
        return False


def _signal(process: psutil.Process, number: int) -> bool:
    """Send it to this very process; False when it has ended."""
    try:
        process.send_signal(number)  # psutil looks whether the pid is still its own
    except psutil.NoSuchProcess:
        return False
    return True
