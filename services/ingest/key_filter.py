"""Which events may be stored in a segment: a compact answer in memory that is never a wrong "no".

A split block Bloom filter (Putze, Sanders, Singler 2007; also in Parquet): an event id picks one
block of 256 bits and sets one bit in each of its eight 32-bit lanes. One cache miss an id, all ids
of a group at once in numpy. Event ids are hashes or random, so their bits are used as they are.

A segment may have a second filter besides, by other bits of the ids: whether an id picks a block
there says nothing of the block that it picks here, so the two err about different ids.
"""

import mmap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.kit.events import EVENT_ID_BYTES

# 0.5 % of ids that are not in a segment pass, and of those 0.5 % pass its second filter, too.
BITS_PER_KEY = 12
BYTES_PER_KEY = BITS_PER_KEY / 8
_BLOCK_WORDS = 4
BLOCK_BYTES = 8 * _BLOCK_WORDS
_LANE_BITS = 32
_LANE_SHIFTS = 5  # log2(_LANE_BITS)

_U64 = np.uint64
Words = NDArray[np.uint64]
Positions = NDArray[np.intp]
Truths = NDArray[np.bool_]

# A word has two lanes: the bit of each, by the ten bits of hash that choose them.
_WORD_SHIFTS = np.arange(_BLOCK_WORDS, dtype=_U64) * _U64(2 * _LANE_SHIFTS)
_WORD_CHOICES = 1 << 2 * _LANE_SHIFTS
_WORD_BITS = np.array(
    [
        1 << choice % _LANE_BITS | 1 << _LANE_BITS + choice // _LANE_BITS
        for choice in range(_WORD_CHOICES)
    ],
    _U64,
)
_WORDS = np.arange(_BLOCK_WORDS)
_LOW_HALF = _U64(0xFFFF_FFFF)
# The upper 40 bits of 64.
_SECOND_SHIFT = _U64(24)
_ALL = slice(None)
# Four comparisons, a byte each, seen as one number: all are true.
_ALL_TRUE = np.uint32(0x01010101)


class HashedIds:
    """Event ids made ready to be looked for in any number of filters."""

    def __init__(self, event_ids: bytes) -> None:
        """`event_ids`: 16 bytes each, one after the other."""
        halves = np.frombuffer(event_ids, dtype="<u8").reshape(-1, EVENT_ID_BYTES // 8)
        self._halves = halves
        self._hash(halves[:, 0] & _LOW_HALF, halves[:, 1:])

    def _hash(self, block_hashes: Words, choosing: Words) -> None:
        """`block_hashes`: 32 bits each; `choosing`: a column, of which the lower 40 bits count."""
        self.block_hashes = block_hashes
        # Filters of full segments are of one size, and an id picks the same block in each of them.
        self._numbers: dict[int, Positions] = {}
        choices = (choosing >> _WORD_SHIFTS) & _U64(_WORD_CHOICES - 1)
        self.masks = _WORD_BITS.take(choices.view(np.int64))

    def for_second(self, positions: Positions | slice = _ALL) -> "HashedIds":
        """The ids at these positions as second filters know them."""
        ids = HashedIds.__new__(HashedIds)
        ids._halves = self._halves[positions]
        ids._hash(ids._halves[:, 0] >> _U64(32), ids._halves[:, 1:] >> _SECOND_SHIFT)
        return ids

    def numbers(self, blocks: int) -> Positions:
        """Which block each picks, in a filter of so many."""
        if blocks not in self._numbers:
            numbers = self.block_hashes * _U64(blocks) >> _U64(32)
            self._numbers[blocks] = numbers.astype(np.intp)
        return self._numbers[blocks]

    def are_in(self, blocks: bytes) -> Truths:
        """Of each whether it may be in its own of these blocks."""
        return self._are_in(np.frombuffer(blocks, "<u8").reshape(-1, _BLOCK_WORDS) & self.masks)

    def _are_in(self, masked: Words) -> Truths:
        # A fifth of the time that any() or all() takes along rows of four.
        found: Truths = (masked == self.masks).view(np.uint32) == _ALL_TRUE
        return found.reshape(-1)

    def __len__(self) -> int:
        return len(self.block_hashes)


class KeyFilter:
    """The event ids of one segment."""

    def __init__(self, words: Words) -> None:
        self._words = words

    @classmethod
    def for_keys(cls, count: int) -> "KeyFilter":
        """An empty filter with room for `count` ids."""
        blocks = max(count * BITS_PER_KEY // (8 * BLOCK_BYTES), 1)
        return cls(np.zeros((blocks, _BLOCK_WORDS), _U64))

    @classmethod
    def from_bytes(cls, stored: bytes | mmap.mmap) -> "KeyFilter":
        """What `to_bytes` gave; nothing can be added to it."""
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
        # Flat: that is twice as fast as rows of words.
        places = ids.numbers(len(self._words))[:, np.newaxis] * _BLOCK_WORDS + _WORDS
        np.bitwise_or.at(self._words.reshape(-1), places.reshape(-1), ids.masks.reshape(-1))

    def united(self, other: "KeyFilter") -> "KeyFilter | None":
        """A filter of the ids of both; None: they are not of the same size."""
        if self._words.shape != other._words.shape:
            return None
        return KeyFilter(self._words | other._words)

    def find(self, ids: HashedIds) -> Positions:
        """The positions of the ids that may be in it; all others are certainly not."""
        words = self._words.take(ids.numbers(len(self._words)), axis=0)
        words &= ids.masks
        return np.flatnonzero(ids._are_in(words))

    def blocks(self, numbers: Sequence[int]) -> bytes:
        """The blocks of these numbers, one after the other."""
        return self._words.take(numbers, axis=0).tobytes()
