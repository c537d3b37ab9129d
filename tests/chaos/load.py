"""Senders: each sends events its own way until it is told to stop, and again what got no answer."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.journal import Attempt, Journal
from tests.chaos.usage import ACKNOWLEDGED, Answer, Event, Memory, Receipt, Source, Tenant
from tests.chaos.voids import Voider
from tests.chaos.ways import Way

# After no answer at all, so that a part that is away is not asked in a tight loop.
BACK_OFF_S = 0.3
# Of the parcels while something waits for its answer.
RETRY_SHARE = 0.5
ANSWERED_S_MAX = 120.0


@dataclass(frozen=True)
class Style:
    """How one kind of sender works: `pause_s` is the mean time between its parcels."""

    name: str
    way: Way
    senders: int
    parcel_max: int
    pause_s: float


class Unanswered:
    """Events with keys that nobody has answered, to be sent again by whichever sender."""

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, events: Sequence[Event]) -> None:
        """They are to be sent again."""
        self._waiting.extend(events)

    def take(self, size_max: int) -> list[Event]:
        """Some of one tenant's, oldest first."""
        taken: list[Event] = []
        while self._waiting and len(taken) < size_max:
            if taken and self._waiting[0].tenant != taken[0].tenant:
                break
            taken.append(self._waiting.popleft())
        return taken


class Load:
    """All senders of a campaign."""

    def __init__(
        self,
        seed: int,
        styles: Sequence[Style],
        tenants: Mapping[str, Tenant],
        journal: Journal,
        voider: Voider,
    ) -> None:
        self._voider = voider
        self._seed = seed
        self._styles = styles
        self._tenants = tenants
        self._journal = journal
        self._memory = Memory()
        self._unanswered = Unanswered()
        self._in_flight = 0
        self._ending = asyncio.Event()
        self.answers: Counter[Answer] = Counter()

    async def run(self, duration_s: float) -> bool:
        """Send for so long, then until all events with keys are answered, or ANSWERED_S_MAX.

        Returns whether all are.
        """
        senders = [
            asyncio.create_task(self._send_on(style, f"{self._seed}/{style.name}-{number}"))
            for style in self._styles
            for number in range(style.senders)
        ]
        senders.append(asyncio.create_task(self._voider.run(self._ending)))
        try:
            await self._watched(senders, duration_s)
            self._ending.set()
            _done, late = await asyncio.wait(senders, timeout=ANSWERED_S_MAX)
        finally:
            for sender in senders:
                sender.cancel()
            ended = await asyncio.gather(*senders, return_exceptions=True)
        for problem in ended:
            if isinstance(problem, Exception):
                raise problem
        return not late

    async def _watched(self, senders: list[asyncio.Task[None]], duration_s: float) -> None:
        """Wait; a sender that ends by itself has a bug, which is raised."""
        ended, _ = await asyncio.wait(
            senders, timeout=duration_s, return_when=asyncio.FIRST_EXCEPTION
        )
        for sender in ended:
            sender.result()

    async def _send_on(self, style: Style, name: str) -> None:
        source = Source(name, list(self._tenants), self._memory)
        while not (self._ending.is_set() and self._all_answered()):
            parcel = self._next_parcel(style, source)
            answered = await self._send(style, parcel, source.rng) if parcel else True
            pause_s = source.rng.expovariate(1 / style.pause_s)
            await asyncio.sleep(pause_s if answered else pause_s + BACK_OFF_S)

    def _all_answered(self) -> bool:
        return not self._unanswered and not self._in_flight

    def _next_parcel(self, style: Style, source: Source) -> list[Event]:
        retry = self._ending.is_set() or source.rng.random() < RETRY_SHARE
        parcel = self._unanswered.take(style.parcel_max) if retry else []
        if parcel or self._ending.is_set():
            return parcel
        return source.parcel(source.rng.randint(1, style.parcel_max))

    async def _send(self, style: Style, parcel: list[Event], rng: random.Random) -> bool:
        """Send once; whether there was any answer."""
        attempts = self._journal.attempts(style.name, parcel)
        for event in parcel:
            if event.key:
                self._memory.sent(event, rng)
        self._in_flight += 1
        try:
            receipts = await style.way(self._tenants[parcel[0].tenant], attempts)
        finally:
            self._in_flight -= 1
        self._note(attempts, receipts, rng)
        return any(receipt.answer is not Answer.UNKNOWN for receipt in receipts)

    def _note(
        self, attempts: Sequence[Attempt], receipts: Sequence[Receipt], rng: random.Random
    ) -> None:
        self._journal.answered(attempts, receipts)
        self.answers.update(receipt.answer for receipt in receipts)
        again = []
        for attempt, (answer, event_id) in zip(attempts, receipts, strict=True):
            if answer is Answer.ACCEPTED:
                self._voider.acknowledged(attempt.event.tenant, event_id)
            if not attempt.event.key:
                continue
            if answer is Answer.ACCEPTED:
                self._memory.accepted(attempt.event, rng)
            elif answer is Answer.UNKNOWN:
                again.append(attempt.event)
        self._unanswered.add(again)

    def __str__(self) -> str:
        counts = [*self.answers.items(), *self._voider.answers.items()]
        return ", ".join(f"{answer} {count}" for answer, count in counts)

    @property
    def unanswered(self) -> int:
        """Events with keys that wait to be sent again."""
        return len(self._unanswered)

    @property
    def acknowledged(self) -> int:
        """Answers so far that promise an event to be stored."""
        return sum(self.answers[answer] for answer in ACKNOWLEDGED)
