"""What the load has sent and what it was told, written down as it happens.

An attempt is one event sent once. Its number goes along as metadata, which is stored with the
event and is no part of what is billed: so a stored event names the very attempt it came from,
however ids are derived from keys.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.chaos.usage import NO_RECEIPT, Answer, Event, Receipt, VoidAnswer

METADATA_KEY = "attempt"


@dataclass(slots=True)
class Attempt:
    """One event sent once, by `way`."""

    number: int
    event: Event
    way: str
    receipt: Receipt = NO_RECEIPT

    @property
    def answer(self) -> Answer:
        """What its sender was told."""
        return self.receipt.answer

    @property
    def metadata(self) -> dict[str, str]:
        """What tells it in the database."""
        return {METADATA_KEY: str(self.number)}


@dataclass(slots=True)
class VoidAttempt:
    """One event that was to be voided, once."""

    number: int
    tenant: str
    event_id: str
    answer: VoidAnswer = VoidAnswer.UNKNOWN


class Journal:
    """A file with a line for each attempt before it is sent, and a line for each answer after."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w", encoding="utf-8")
        self._next = 1

    def attempts(self, way: str, events: Sequence[Event]) -> list[Attempt]:
        """Write down that these are sent now."""
        made = [Attempt(self._next + at, event, way) for at, event in enumerate(events)]
        self._next += len(made)
        for attempt in made:
            self._write("attempt", attempt.number, attempt.way, *_content(attempt.event))
        self._file.flush()
        return made

    def void_attempts(self, tenant: str, event_ids: Sequence[str]) -> list[VoidAttempt]:
        """Write down that these are to be voided now."""
        made = [VoidAttempt(self._next + at, tenant, each) for at, each in enumerate(event_ids)]
        self._next += len(made)
        for attempt in made:
            self._write("void", attempt.number, attempt.tenant, attempt.event_id)
        self._file.flush()
        return made

    def voids_answered(
        self, attempts: Sequence[VoidAttempt], answers: Sequence[VoidAnswer]
    ) -> None:
        """Write down what became of them."""
        for attempt, answer in zip(attempts, answers, strict=True):
            self._write("void answer", attempt.number, answer)
        self._file.flush()

    def answered(self, attempts: Sequence[Attempt], receipts: Sequence[Receipt]) -> None:
        """Write down what became of them, one receipt an attempt; UNKNOWN is no answer."""
        for attempt, receipt in zip(attempts, receipts, strict=True):
            if receipt.answer is not Answer.UNKNOWN:
                self._write("answer", attempt.number, *receipt)
        self._file.flush()

    def close(self) -> None:
        """Write what is left."""
        self._file.close()

    def read(self) -> tuple[list[Attempt], list[VoidAttempt]]:
        """All attempts with their answers, from the file."""
        return read_journal(self._path)

    def _write(self, *entry: object) -> None:
        self._file.write(f"{json.dumps(entry)}\n")


def read_journal(path: Path) -> tuple[list[Attempt], list[VoidAttempt]]:
    """The attempts of a journal with their answers, in the order in which they were made."""
    attempts: dict[int, Attempt] = {}
    voids: dict[int, VoidAttempt] = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            kind, number, *rest = json.loads(line)
            match kind:
                case "attempt":
                    attempts[number] = _attempt(number, rest)
                case "answer":
                    attempts[number].receipt = Receipt(Answer(rest[0]), rest[1])
                case "void":
                    voids[number] = VoidAttempt(number, *rest)
                case "void answer":
                    voids[number].answer = VoidAnswer(rest[0])
    return list(attempts.values()), list(voids.values())


def _content(event: Event) -> list[str | None]:
    time = event.time.isoformat() if event.time else None
    return [event.tenant, event.key, event.metric, event.amount, event.customer, time]


def _attempt(number: int, rest: list[str]) -> Attempt:
    way, tenant, key, metric, amount, customer, time = rest
    happened = datetime.fromisoformat(time) if time else None
    return Attempt(number, Event(tenant, key, metric, amount, customer, happened), way)
