"""Which events may be stored in a segment: a compact answer in memory that is never a wrong "no".

A split block Bloom filter (Putze, Sanders, Singler 2007; also in Parquet): an event id picks one
block of 256 bits and sets one bit in each of its eight 32-bit lanes. One cache miss an id, all ids
of a group at once in numpy. Event ids are hashes or random, so their bits are used as they are.
"""

import numpy as np
from numpy.typing import NDArray

from services.kit.events import EVENT_ID_BYTES

# 0.5 % of ids that are not in a segment are looked up there all the same.
BITS_PER_KEY = 12
BYTES_PER_KEY = BITS_PER_KEY / 8
_BLOCK_WORDS = 4
_BLOCK_BYTES = 8 * _BLOCK_WORDS
_LANE_BITS = 32
_LANE_SHIFTS = 5  # log2(_LANE_BITS)

_U64 = np.uint64
Words = NDArray[np.uint64]
Positions = NDArray[np.intp]


class HashedIds:
    """Event ids made ready to be looked for in any number of filters."""

    def __init__(self, event_ids: bytes) -> None:
        """`event_ids`: 16 bytes each, one after the other."""
        halves = np.frombuffer(event_ids, dtype="<u8").reshape(-1, EVENT_ID_BYTES // 8)
        self.block_hashes = halves[:, 0] & _U64(0xFFFF_FFFF)
        self.masks = np.empty((len(halves), _BLOCK_WORDS), _U64)
        for word in range(_BLOCK_WORDS):
            low, high = 2 * word * _LANE_SHIFTS, (2 * word + 1) * _LANE_SHIFTS
            self.masks[:, word] = _bit(halves[:, 1], low) | _bit(halves[:, 1], high) << _U64(32)


def _bit(hashes: Words, shift: int) -> Words:
    return _U64(1) << (hashes >> _U64(shift) & _U64(_LANE_BITS - 1))


class KeyFilter:
    """The event ids of one segment."""

    def __init__(self, words: Words) -> None:
        self._words = words

    @classmethod
    def for_keys(cls, count: int) -> "KeyFilter":
        """An empty filter with room for `count` ids."""
        blocks = max(count * BITS_PER_KEY // (8 * _BLOCK_BYTES), 1)
        return cls(np.zeros((blocks, _BLOCK_WORDS), _U64))

    @classmethod
    def from_bytes(cls, stored: bytes) -> "KeyFilter":
        """What `to_bytes` gave."""
        return cls(np.frombuffer(stored, dtype="<u8").reshape(-1, _BLOCK_WORDS))

    def to_bytes(self) -> bytes:
        """The filter as it is kept in the database."""
        return self._words.astype("<u8", copy=False).tobytes()

    @property
    def size_bytes(self) -> int:
        """How much memory it takes."""
        return self._words.nbytes

    def add(self, ids: HashedIds) -> None:
        """Add ids."""
        np.bitwise_or.at(self._words, self._blocks(ids), ids.masks)

    def find(self, ids: HashedIds) -> Positions:
        """The positions of the ids that may be in it; all others are certainly not."""
        missing = ids.masks & ~self._words[self._blocks(ids)]
        return np.flatnonzero(~missing.any(axis=1))

    def _blocks(self, ids: HashedIds) -> Positions:
        blocks = ids.block_hashes * _U64(len(self._words)) >> _U64(32)
        return blocks.astype(np.intp)
