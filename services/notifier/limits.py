"""Shares: how much of a process one key (an endpoint, an organization) may take."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class KeyedSlots:
    """At most `slots_max` holders of each key at a time; others wait. Forgets unused keys."""

    def __init__(self, slots_max: int) -> None:
        self._slots_max = slots_max
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._users: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many keys are in use."""
        return len(self._slots)

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Hold one of the key's slots."""
        slots = self._slots.setdefault(key, asyncio.Semaphore(self._slots_max))
        self._users[key] += 1
        try:
            async with slots:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._slots[key]


class KeyedCount:
    """Counts what each key has taken, to top it up when it has come down to half of its share."""

    def __init__(self, share_max: int) -> None:
        self._half = share_max // 2
        self._taken: Counter[str] = Counter()

    def has_room(self, key: str) -> bool:
        """Whether the key may be topped up."""
        return self._taken[key] <= self._half

    def take(self, key: str) -> None:
        """Count one more."""
        self._taken[key] += 1

    def give_back(self, key: str) -> bool:
        """Count one less. True when the key has just come to have room again."""
        self._taken[key] -= 1
        left = self._taken[key]
        if not left:
            del self._taken[key]
        return left == self._half
