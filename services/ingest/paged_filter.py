"""A key filter in a file, of which this process has in memory what a look-up needs, meanwhile.

The filters of closed segments grow with what was ever stored; a process's memory must not. So those
of older segments lie in a file, and look-ups read them through a mapping whose pages are given back
at once. They stay in the kernel's page cache as long as nobody needs that memory for something
else; then they are read from disk again.
"""

import contextlib
import mmap
import tempfile
from io import FileIO
from typing import Protocol

from services.ingest.key_filter import HashedIds, KeyFilter, Positions


class Filter(Protocol):
    """The event ids of one segment."""

    @property
    def size_bytes(self) -> int:
        """How large it is, wherever it lies."""

    @property
    def resident_bytes(self) -> int:
        """What it takes of this process's memory between look-ups."""

    def page_out(self) -> bool:
        """Take no memory between look-ups from now on; False: it can't."""

    def find(self, ids: HashedIds) -> Positions:
        """The positions of the ids that may be in it; all others are certainly not."""


def unnamed_file(content: bytes, directory: str) -> FileIO:
    """A file with this content, which is gone with the process. OSError: it can't be written."""
    file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 - the caller's
    # Written, not only made long enough: a full disk is found out here, and not by SIGBUS.
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]
    return file


class MemoryFilter:
    """A Filter where no file can be written: it stays in memory."""

    def __init__(self, stored: bytes) -> None:
        """`stored`: as KeyFilter.to_bytes() gave it."""
        self._key_filter = KeyFilter.from_bytes(stored)
        self.size_bytes = self.resident_bytes = self._key_filter.size_bytes
        self.find = self._key_filter.find

    def page_out(self) -> bool:
        """It can't."""
        return False


class PagedFilter:
    """A Filter in a file without a name, which is gone with the process."""

    def __init__(self, stored: bytes, directory: str) -> None:
        """`stored`: as KeyFilter.to_bytes() gave it. Writes it; OSError when that can't be done."""
        with unnamed_file(stored, directory) as file:
            # It has a descriptor of its own.
            self._pages = mmap.mmap(file.fileno(), len(stored), access=mmap.ACCESS_READ)
        self._come_back_in_large_pieces()
        self._key_filter = KeyFilter.from_bytes(self._pages)
        self._paged_out = False

    @property
    def size_bytes(self) -> int:
        """How large it is, wherever it lies."""
        return self._key_filter.size_bytes

    @property
    def resident_bytes(self) -> int:
        """What it takes of this process's memory between look-ups, at most."""
        return 0 if self._paged_out else self.size_bytes

    def page_out(self) -> bool:
        """Take no memory between look-ups from now on."""
        self._paged_out = True
        self._let_go()
        return True

    def find(self, ids: HashedIds) -> Positions:
        """The positions of the ids that may be in it; all others are certainly not."""
        found = self._key_filter.find(ids)
        if self._paged_out:
            self._let_go()
        return found

    def _come_back_in_large_pieces(self) -> None:
        """When the kernel took the pages from its cache and reads them again, it is to do so in
        pieces of megabytes, as they were written. In pieces of 4 KiB the first look-up takes three
        times as long, and each one after it six times (307 us instead of 51).
        """
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without
                self._pages.madvise(mmap.MADV_HUGEPAGE)

    def _let_go(self) -> None:
        # For 1,500 ids and a filter of 3 MB a look-up takes 73 us so, 29 when it stays in memory,
        # and 200 when it is read into a buffer.
        self._pages.madvise(mmap.MADV_DONTNEED)
