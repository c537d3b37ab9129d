"""What this process knows of the segments, and where an event may be stored already.

Exactness does not rest on what is known here being new. Whoever writes names the segment that he
believes to be open; a closed one refuses him (the database does), he learns what there is now, and
begins anew. Who believes in the right one knows all that are closed, since both are read at once;
and a closed segment never gets another event.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import structlog
from prometheus_client import Gauge

from services.ingest import segment_repository as repository
from services.ingest.key_filter import HashedIds, KeyFilter
from services.ingest.paged_filter import Filter, MemoryFilter, PagedFilter
from services.kit.database import Database

log = structlog.get_logger()

# Each in a file has a descriptor, and processes often may have no more than 1,024.
FILTERS_MAX = 512

_FILTER_BYTES = Gauge("usageflow_ingest_key_filter_bytes", "Size of key filters", ["place"])
_SEGMENTS = Gauge("usageflow_ingest_segments", "Segments of events", ["state"])

Places = dict[int, Sequence[int]]


class Known(NamedTuple):
    """The segments at one moment. A closed one without a filter is asked about every event."""

    open: int
    filters: Mapping[int, Filter]
    unfiltered: Sequence[int]

    @property
    def segments(self) -> list[int]:
        """All of them, in order."""
        return sorted((self.open, *self.filters, *self.unfiltered))

    def places(self, ids: HashedIds, positions: Sequence[int]) -> Places:
        """In which closed segments the ids at `positions` may be, and at which positions."""
        places: Places = dict.fromkeys(self.unfiltered, positions)
        for segment, key_filter in self.filters.items():
            found = key_filter.find(ids)
            if len(found):
                places[segment] = [positions[at] for at in found.tolist()]
        return places


class _Noted:
    """The ids that this process has stored in a segment, each once."""

    def __init__(self, events_max: int) -> None:
        self.key_filter = KeyFilter.for_keys(events_max)
        self.count = 0

    def add(self, ids: HashedIds) -> None:
        self.key_filter.add(ids)
        self.count += len(ids)


class Segments:
    """The segments that are known, and which events were stored lately."""

    def __init__(
        self,
        database: Database,
        *,
        events_max: int,
        filters_bytes_max: int,
        resident_bytes_max: int,
        directory: str,
    ) -> None:
        """`events_max`: what a segment is to hold; `filters_bytes_max`: for all filters;
        `resident_bytes_max`: for those that stay in memory; the others lie in files in `directory`.
        """
        self._database = database
        self._events_max = events_max
        self._filters_bytes_max = filters_bytes_max
        self._resident_bytes_max = resident_bytes_max
        self._directory = directory
        self._known: Known | None = None
        # Of the open segment, and of the one before until its filter is there.
        self._noted: dict[int, _Noted] = {}
        self.filter_missing = asyncio.Event()

    async def known(self) -> Known:
        """What is known; the first time it is read. UnavailableError."""
        return self._known or await self.refresh()

    async def refresh(self) -> Known:
        """Read which segments there are, and the filters that are new. UnavailableError."""
        async with self._database.transaction() as connection:
            rows = await repository.list_segments(connection)
            before = self._known.filters if self._known else {}
            filters: dict[int, Filter] = {}
            for segment in self._within_bounds(rows):
                if segment in before:
                    filters[segment] = before[segment]
                # One by one: together they would take as much memory as all filters have bytes.
                elif (stored := await repository.load_key_filter(connection, segment)) is not None:
                    filters[segment] = await asyncio.to_thread(self._made, stored)
        return self._learn(rows, filters)

    def _within_bounds(self, rows: Sequence[repository.SegmentRow]) -> list[int]:
        """The newest segments whose filters fit; an older one is asked directly, which is slow."""
        kept: list[int] = []
        left_bytes = self._filters_bytes_max
        for row in reversed(rows):
            if row.filter_bytes is None:
                continue
            left_bytes -= row.filter_bytes
            if left_bytes < 0 or len(kept) == FILTERS_MAX:
                log.warning("key_filters_too_large", segment=row.segment)
                break
            kept.append(row.segment)
        return kept

    def _made(self, stored: bytes) -> Filter:
        try:
            return PagedFilter(stored, self._directory)
        except OSError as error:
            log.warning("key_filter_stays_in_memory", error=repr(error))
            return MemoryFilter(stored)

    def _learn(self, rows: Sequence[repository.SegmentRow], filters: Mapping[int, Filter]) -> Known:
        closed = [row.segment for row in rows if row.close_time is not None]
        [opened] = [row.segment for row in rows if row.close_time is None]
        known = Known(opened, filters, [segment for segment in closed if segment not in filters])
        if self._known is None or known.open >= self._known.open:
            # Another process may have read later than this one, and returned first.
            self._known = known
            self._page_out(filters)
            self._noted = {at: each for at, each in self._noted.items() if at not in filters}
            if known.unfiltered:
                self.filter_missing.set()
        _SEGMENTS.labels("closed").set(len(closed))
        _SEGMENTS.labels("without_filter").set(len(known.unfiltered))
        return self._known

    def _page_out(self, filters: Mapping[int, Filter]) -> None:
        """Let the newest filters stay in memory, as many as fit: most retries are of late."""
        left_bytes = self._resident_bytes_max
        for segment in sorted(filters, reverse=True):
            left_bytes -= filters[segment].resident_bytes
            if left_bytes < 0:
                filters[segment].page_out()
        resident_bytes = sum(each.resident_bytes for each in filters.values())
        size_bytes = sum(each.size_bytes for each in filters.values())
        _FILTER_BYTES.labels("memory").set(resident_bytes)
        _FILTER_BYTES.labels("file").set(size_bytes - resident_bytes)

    def note_stored(self, segment: int, ids: HashedIds) -> None:
        """These, all new, were stored in a segment just now."""
        if segment not in self._noted:
            near = range(segment - 1, segment + 2)
            self._noted = {at: noted for at, noted in self._noted.items() if at in near}
            self._noted[segment] = _Noted(self._events_max)
        self._noted[segment].add(ids)

    def recent(self, segment: int, ids: HashedIds) -> Sequence[int]:
        """The positions of ids that this process seems to have stored in a segment.

        Only a hint, which spares a COPY that would fail; the segment's primary key decides.
        """
        if segment not in self._noted:
            return []
        found: list[int] = self._noted[segment].key_filter.find(ids).tolist()
        return found

    def whole_filter(self, segment: int, count: int) -> KeyFilter | None:
        """The filter of a closed segment of `count` events, if this process stored all of them.

        What is noted is there, each id once, and nothing else comes: as many are all of them.
        """
        noted = self._noted.get(segment)
        return noted.key_filter if noted is not None and noted.count == count else None
