"""Shares: how much of a process one key (an endpoint, an organization) may take."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PROVEN_SHARE = 4  # a 4th


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
        await self.acquire(key)
        try:
            yield
        finally:
            self.release(key)

    async def acquire(self, key: str) -> None:
        """Take one of the key's slots; release() gives it back."""
        slots = self._slots.setdefault(key, asyncio.Semaphore(self._slots_max))
        self._users[key] += 1
        try:
            await slots.acquire()
        except BaseException:
            self._leave(key)
            raise

    def release(self, key: str) -> None:
        """Give a slot back."""
        self._slots[key].release()
        self._leave(key)

    def _leave(self, key: str) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key], self._slots[key]


class Lanes:
    """Slots of attempts, of the process and of each key, in two lanes.

    An attempt begins in the quick lane. When it has taken `slow_after_s` it goes over to the slow
    one, which has room for more, as who waits for an answer costs little: so receivers that never
    answer don't hold up the others of the same key for longer. While that is full it stays.

    Of the quick lane, of the process's as of each key's, a 4th is for the proven: those of whom it
    is known that they answer quickly. So many that nobody knows don't hold them up at all.
    """

    def __init__(
        self, *, quick: int, quick_of_key: int, slow: int, slow_of_key: int, slow_after_s: float
    ) -> None:
        self._quick = asyncio.Semaphore(quick)
        self._quick_of_key = KeyedSlots(quick_of_key)
        self._unproven = asyncio.Semaphore(quick - quick // PROVEN_SHARE)
        self._unproven_of_key = KeyedSlots(quick_of_key - quick_of_key // PROVEN_SHARE)
        self._slow_max = slow
        self._slow_of_key_max = slow_of_key
        self._slow: Counter[str] = Counter()
        self._slow_after_s = slow_after_s
        # All wait equally long, so one timer is enough: the first of them is always the next.
        self._watched: deque[_Held] = deque()
        self._looking: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def hold(self, key: str, *, proven: bool = False) -> AsyncIterator[None]:
        """Hold a slot."""
        if not proven:
            await _both(key, self._unproven_of_key, self._unproven)
        try:
            await _both(key, self._quick_of_key, self._quick)
        except BaseException:
            if not proven:
                self._leave_unproven(key)
            raise
        attempt = _Held(self, key, proven=proven)
        self._watch(attempt)
        try:
            yield
        finally:
            attempt.end()

    def _watch(self, held: "_Held") -> None:
        loop = asyncio.get_running_loop()
        held.look_s = loop.time() + self._slow_after_s
        self._watched.append(held)
        if self._looking is None:
            self._looking = loop.call_at(held.look_s, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        watched = self._watched
        while watched and (watched[0].ended or watched[0].look_s <= now_s):
            held = watched.popleft()
            if not held.ended and not held.look():
                held.look_s = now_s + self._slow_after_s
                watched.append(held)
        self._looking = loop.call_at(watched[0].look_s, self._look) if watched else None

    def change_lane(self, key: str, *, proven: bool = False) -> bool:
        """Go over to the slow lane; False when that is full."""
        if self._slow.total() >= self._slow_max or self._slow[key] >= self._slow_of_key_max:
            return False
        self._slow[key] += 1
        self.leave_quick(key, proven=proven)
        return True

    def leave_quick(self, key: str, *, proven: bool = False) -> None:
        """Give a slot of the quick lane back."""
        self._quick.release()
        self._quick_of_key.release(key)
        if not proven:
            self._leave_unproven(key)

    def _leave_unproven(self, key: str) -> None:
        self._unproven.release()
        self._unproven_of_key.release(key)

    def leave_slow(self, key: str) -> None:
        """Give a slot of the slow lane back."""
        self._slow[key] -= 1
        if not self._slow[key]:
            del self._slow[key]


async def _both(key: str, of_key: KeyedSlots, of_all: asyncio.Semaphore) -> None:
    """Take a slot of the key and one of all, or neither."""
    await of_key.acquire(key)
    try:
        await of_all.acquire()
    except BaseException:
        of_key.release(key)
        raise


class _Held:
    """A slot that is held, in the lane where it is now; `look_s` is when to look at it again."""

    __slots__ = ("_key", "_lanes", "_proven", "ended", "look_s", "slow")

    def __init__(self, lanes: Lanes, key: str, *, proven: bool) -> None:
        self._lanes = lanes
        self._key = key
        self._proven = proven
        self.look_s = 0.0
        self.slow = False
        self.ended = False

    def look(self) -> bool:
        """Change lanes; False when the slow one is full."""
        self.slow = self._lanes.change_lane(self._key, proven=self._proven)
        return self.slow

    def end(self) -> None:
        """Give the slot back."""
        self.ended = True
        if self.slow:
            self._lanes.leave_slow(self._key)
        else:
            self._lanes.leave_quick(self._key, proven=self._proven)


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


class Shares:
    """How much may be taken for each key: little of what nobody knows, twice as much after each
    success that was quick, up to `most`; after a slow success `slow`, after a slow failure 1.

    A share is topped up when it has come down to half. Forgets the keys that were known first.
    """

    REMEMBERED_MAX = 10_000

    def __init__(self, *, first: int, slow: int, most: int) -> None:
        self._first = first
        self._slow = slow
        self._most = most
        self._shares: dict[str, int] = {}
        self._quick: set[str] = set()
        self._taken: Counter[str] = Counter()
        self._full: set[str] = set()

    def room(self, key: str) -> int:
        """How much more may be taken for the key now."""
        share, taken = self._shares.get(key, self._first), self._taken[key]
        return share - taken if taken <= share // 2 else 0

    def quick(self, key: str) -> bool:
        """Whether the last attempt was a quick success."""
        return key in self._quick

    def take(self, key: str) -> None:
        """Count one more."""
        self._taken[key] += 1
        if not self.room(key):
            self._full.add(key)

    def fill(self, key: str) -> None:
        """As much was taken as there was room for when that was asked; the share may have grown
        since, so that there is room all the same.
        """
        self._full.add(key)

    def give_back(self, key: str) -> bool:
        """Count one less. True when the key has room again, for the first time since it had none;
        also when that is because its share has grown.
        """
        self._taken[key] -= 1
        if not self._taken[key]:
            del self._taken[key]
        if key not in self._full or not self.room(key):
            return False
        self._full.remove(key)
        return True

    def note(self, key: str, *, slow: bool, failed: bool) -> None:
        """Remember what one attempt was like; before its give_back()."""
        share = self._shares.pop(key, self._first)
        if slow:
            share = 1 if failed else self._slow
        elif not failed:
            share = min(2 * share, self._most)
        self._shares[key] = share
        if slow or failed:
            self._quick.discard(key)
        else:
            self._quick.add(key)
        if len(self._shares) > self.REMEMBERED_MAX:
            forgotten = next(iter(self._shares))
            del self._shares[forgotten]
            self._quick.discard(forgotten)


class Rests:
    """Keys that are left alone for a while. Forgets those whose time is over."""

    def __init__(self) -> None:
        self._until_s: dict[str, float] = {}

    def rest(self, key: str, for_s: float) -> None:
        """Leave the key alone from now on for so long."""
        now_s = time.monotonic()
        self._until_s = {k: until_s for k, until_s in self._until_s.items() if until_s > now_s}
        self._until_s[key] = max(self._until_s.get(key, 0.0), now_s + for_s)

    def resting(self, key: str, now_s: float) -> bool:
        """Whether the key is to be left alone; `now_s` is time.monotonic()."""
        return self._until_s.get(key, 0.0) > now_s
