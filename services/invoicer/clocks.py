"""Test clocks: the time of a customer, or of all of them, in test mode. Pure.

docs/adr/0043-test-clocks.md says why they are as they are.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class ClockStatus(StrEnum):
    """ADVANCING: it has not reached its time yet, or something that is due by then is not done."""

    READY = "READY"
    ADVANCING = "ADVANCING"
    ENDED = "ENDED"


@dataclass(frozen=True, slots=True)
class Clock:
    """A test clock of one customer, or ("") of all. `time` is what it shows, `target_time` where it
    is going. `accept_time`: when it was last told to go on, by the real clock. `revision` counts
    what others have to know of it.
    """

    id: str
    customer_id: str
    time: datetime
    target_time: datetime
    ready: bool
    accept_time: datetime
    create_time: datetime
    end_time: datetime | None = None
    revision: int = 1

    @property
    def status(self) -> ClockStatus:
        """What it is doing."""
        if self.end_time is not None:
            return ClockStatus.ENDED
        return ClockStatus.READY if self.ready else ClockStatus.ADVANCING

    def now(self, real: datetime) -> datetime:
        """The time of those who are on it: one that has ended goes on with the real time, once
        that has caught up. So nobody's time ever goes back.
        """
        return self.time if self.end_time is None else max(self.time, real)

    def complete_from(self, regular: datetime) -> datetime:
        """From when on usage, which is accepted in real time, is complete for what it makes due:
        all that was accepted before it was told to go on is in. `regular`: without a clock.
        """
        return self.accept_time if self.end_time is None else regular


def now_of(clock: Clock | None, real: datetime) -> datetime:
    """The time by a clock, or the real one."""
    return real if clock is None else clock.now(real)
