"""What a checker has found: how many events of each problem, and the first few in words."""

from collections import Counter
from enum import Enum, StrEnum

TEXTS_MAX = 10  # of a problem


class Kind(StrEnum):
    """What a problem means for the bill."""

    LOST = "lost"  # an acknowledged event is missing
    DOUBLED = "doubled"  # an event is there more than once
    WRONG = "wrong"  # whatever else must not be


class Problem(Enum):
    """What may be found, of which kind."""

    NOT_STORED = "acknowledged and not stored", Kind.LOST
    OTHER_CONTENT_STORED = "acknowledged, and another content is stored", Kind.LOST
    NOT_COUNTED = "stored and not counted", Kind.LOST
    STORED_TWICE = "stored more than once", Kind.DOUBLED
    ACCEPTED_TWICE = "accepted more than once", Kind.DOUBLED
    COUNTED_TWICE = "counted more than is stored", Kind.DOUBLED
    NOT_SENT = "stored as nobody sent it", Kind.WRONG
    OTHER_ID = "answered with the id of another event", Kind.WRONG
    NOT_VOIDED = "told to be void, and not", Kind.WRONG
    VOIDED_TWICE = "voided more than once", Kind.WRONG
    VOID_NOT_SENT = "void, and nobody voided it", Kind.WRONG
    NO_CONFLICT = "a conflict with the same content, or with nothing", Kind.WRONG
    OTHER_EXTREMES = "counted with another smallest, largest or last", Kind.WRONG
    OTHER_USAGE_TOLD = "usage told is not what is stored", Kind.WRONG
    REFUSED = "valid and refused", Kind.WRONG
    NOT_ANSWERED = "no answer in time", Kind.WRONG
    NOT_SETTLED = "the watermark stands still", Kind.WRONG
    NOT_DRAINED = "work is never done", Kind.WRONG
    UNKNOWN_CUSTOMER = "events name a customer that invoicer does not know", Kind.WRONG
    INVENTED_CUSTOMER = "invoicer knows a customer that no event names", Kind.WRONG

    def __init__(self, words: str, kind: Kind) -> None:
        self.words = words
        self.kind = kind


class Findings:
    """Events by problem, and a bounded number of sentences."""

    def __init__(self) -> None:
        self.events: Counter[Problem] = Counter()
        self.texts: list[str] = []
        self._told: Counter[Problem] = Counter()

    def add(self, problem: Problem, text: str, events: int = 1) -> None:
        """Note that so many events have this problem."""
        self.events[problem] += events
        self._told[problem] += 1
        if self._told[problem] <= TEXTS_MAX:
            self.texts.append(f"{problem.kind}: {problem.words}: {text}")

    def of(self, kind: Kind) -> int:
        """How many events have a problem of this kind."""
        return sum(events for problem, events in self.events.items() if problem.kind is kind)

    @property
    def lost(self) -> int:
        """Events lost."""
        return self.of(Kind.LOST)

    @property
    def doubled(self) -> int:
        """Events doubled."""
        return self.of(Kind.DOUBLED)

    def __bool__(self) -> bool:
        return any(self.events.values())

    def __str__(self) -> str:
        return "; ".join(f"{problem.words}: {count}" for problem, count in self.events.items())
