"""Processes that are kept running, with small real programs in place of services."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from cli.children import Child, Command, spawn
from cli.errors import NotReadyError, PartFailedError
from cli.supervisor import Keeper, Part

WAIT_S = 10


class History:
    """What a keeper told about its process, and a way to wait for more."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self._more = asyncio.Event()

    def __call__(self, _: Keeper, what: str) -> None:
        """Called by the keeper."""
        self.entries.append(what)
        self._more.set()

    async def reach(self, count: int) -> None:
        """Wait until there are so many entries."""
        async with asyncio.timeout(WAIT_S):
            while len(self.entries) < count:
                self._more.clear()
                await self._more.wait()


async def always() -> None:
    """A probe that succeeds."""


async def never() -> None:
    """A probe that fails."""
    raise NotReadyError("still not")


MakePart = Callable[..., Part]


@pytest.fixture
def part(tmp_path: Path) -> MakePart:
    """Makes parts of Python code."""

    def make(
        code: str, ready: Callable[[], Awaitable[None]] = always, stop_s: float = WAIT_S
    ) -> Part:
        command = Command([sys.executable, "-c", code], {"PATH": os.defpath})
        return Part(
            name="it",
            start=lambda: spawn("it", command, tmp_path / "it.log"),
            ready=ready,
            stop_s=stop_s,
        )

    return make


@pytest.fixture
async def keep() -> AsyncIterator[Callable[[Part, History], Keeper]]:
    """Keeps parts running until the test's end."""
    keepers: list[Keeper] = []

    def begin(part: Part, history: History) -> Keeper:
        keeper = Keeper(part, history)
        keepers.append(keeper)
        keeper.begin()
        return keeper

    yield begin
    for keeper in keepers:
        keeper.kill()
        await keeper.stop()


Keep = Callable[[Part, History], Keeper]
SLEEP = "import time; print('here', flush=True); time.sleep(600)"


def child_of(keeper: Keeper) -> Child:
    """The process it runs now."""
    assert keeper.child is not None
    return keeper.child


async def test_a_killed_process_is_restarted_within_two_seconds(part: MakePart, keep: Keep) -> None:
    """As a new process."""
    history = History()
    keeper = keep(part(SLEEP), history)
    await history.reach(1)
    first = child_of(keeper).pid
    killed = time.monotonic()
    os.kill(first, signal.SIGKILL)
    await history.reach(3)
    assert time.monotonic() - killed < 2
    assert history.entries == ["started", "ended by SIGKILL", "started"]
    assert child_of(keeper).pid != first


async def test_each_of_five_kills_in_a_row_is_made_good_within_two_seconds(
    part: MakePart, keep: Keep
) -> None:
    """The delay grows, but not that quickly."""
    history = History()
    keeper = keep(part(SLEEP), history)
    for number in range(5):
        await history.reach(2 * number + 1)
        killed = time.monotonic()
        os.kill(child_of(keeper).pid, signal.SIGKILL)
        await history.reach(2 * number + 3)
        assert time.monotonic() - killed < 2


async def test_a_process_that_keeps_dying_at_the_start_is_an_error(
    part: MakePart, keep: Keep
) -> None:
    """With the reason from its log."""
    keeper = keep(part("import sys; sys.exit('no such table: events')", never), History())
    with pytest.raises(PartFailedError, match=r"(?s)it died 3 times.*no such table: events"):
        await keeper.ready(WAIT_S)


async def test_a_process_that_does_not_get_ready_is_an_error(part: MakePart, keep: Keep) -> None:
    """With what the probe said, and the tail of the log."""
    history = History()
    keeper = keep(part(SLEEP, never), history)
    await history.reach(1)
    with pytest.raises(PartFailedError, match=r"it was not ready within .*\(still not\)"):
        await keeper.ready(0.5)


async def test_a_process_that_can_not_be_started_is_an_error(tmp_path: Path, keep: Keep) -> None:
    """The one that the attempt raised."""
    command = Command(["/no/such/program"], {})
    keeper = keep(Part("it", lambda: spawn("it", command, tmp_path / "log"), never), History())
    with pytest.raises(FileNotFoundError):
        await keeper.ready(WAIT_S)


async def test_stopping_lets_a_process_finish(part: MakePart, keep: Keep, tmp_path: Path) -> None:
    """It gets the signal and the time to end by itself, and is not started again."""
    code = (
        "import signal\n"
        "def end(*_):\n    print('finished', flush=True)\n    raise SystemExit\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('here', flush=True)\n"
        "signal.pause()"
    )
    log = tmp_path / "it.log"

    async def says_here() -> None:
        if "here" not in log.read_text():
            raise NotReadyError("silent")

    history = History()
    keeper = keep(part(code, says_here), history)
    await history.reach(1)
    await keeper.ready(WAIT_S)
    await keeper.stop()
    assert log.read_text() == "here\nfinished\n"
    assert history.entries == ["started"]
    assert keeper.pid is None


async def test_stopping_ends_a_process_that_does_not_listen(
    part: MakePart, keep: Keep, tmp_path: Path
) -> None:
    """When its time is over."""
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)\n"
    log = tmp_path / "it.log"

    async def ignores() -> None:
        if not log.read_text():
            raise NotReadyError("silent")

    history = History()
    keeper = keep(part(code + "while True: signal.pause()", ignores, stop_s=0.2), history)
    await history.reach(1)
    await keeper.ready(WAIT_S)
    child = child_of(keeper)
    await keeper.stop()
    assert child.popen.returncode == -signal.SIGKILL
