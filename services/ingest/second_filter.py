"""A segment's second key filter, in a file: of its blocks only those that are asked for are read.

In a group of hundreds of ids some five pass a segment's first filter by chance. Mapping the file
and letting its pages go again takes 21 us for them, reading their blocks one by one 5.
"""

import mmap
import os
from collections.abc import Sequence

import structlog

from services.ingest.key_filter import BLOCK_BYTES, KeyFilter
from services.ingest.paged_filter import unnamed_file

log = structlog.get_logger()

# For more ids than that (their events were sent once more) a mapping takes less time.
READS_MAX = 64


class SecondFilter:
    """The event ids of one segment, as HashedIds.for_second() knows them."""

    def __init__(self, stored: bytes, directory: str) -> None:
        """`stored`: as KeyFilter.to_bytes() gave it. It stays in memory where no file can be
        written.
        """
        self.size_bytes = len(stored)
        self._blocks = len(stored) // BLOCK_BYTES
        self._stored = b""
        try:
            self._file = unnamed_file(stored, directory)
        except OSError as error:
            log.warning("key_filter_stays_in_memory", error=repr(error))
            self._stored = stored

    @property
    def resident_bytes(self) -> int:
        """What it takes of this process's memory between look-ups."""
        return len(self._stored)

    def read(self, block_hashes: Sequence[int]) -> bytes:
        """The blocks that belong to these hashes, one after the other. OSError: they can't be
        read.
        """
        numbers = [block_hash * self._blocks >> 32 for block_hash in block_hashes]
        if self._stored:
            return KeyFilter.from_bytes(self._stored).blocks(numbers)
        file = self._file.fileno()
        if len(numbers) > READS_MAX:
            pages = mmap.mmap(file, self.size_bytes, access=mmap.ACCESS_READ)
            return KeyFilter.from_bytes(pages).blocks(numbers)
        return b"".join([os.pread(file, BLOCK_BYTES, at * BLOCK_BYTES) for at in numbers])
