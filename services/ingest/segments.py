"""What this process knows of the segments, and where an event may be stored already.

Exactness does not rest on what is known here being new. Whoever writes names the segment that he
believes to be open; a closed one refuses him (the database does), he learns what there is now, and
begins anew. Who believes in the right one knows all that are closed, since both are read at once;
and a closed segment never gets another event.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import structlog
from prometheus_client import Gauge
from sqlalchemy.ext.asyncio import AsyncConnection

from services.ingest import segment_repository as repository
from services.ingest.key_filter import HashedIds, KeyFilter, Positions
from services.ingest.paged_filter import Filter, MemoryFilter, PagedFilter
from services.ingest.second_filter import SecondFilter
from services.kit.database import Database
from services.kit.ids import new_uuid

log = structlog.get_logger()

# Each in a file has a descriptor, and processes often may have no more than 1,024.
FILTERS_MAX = 512

_FILTER_BYTES = Gauge("usageflow_ingest_key_filter_bytes", "Size of key filters", ["place"])
_SEGMENTS = Gauge("usageflow_ingest_segments", "Segments of events", ["state"])

Places = dict[int, Sequence[int]]
AnyFilter = TypeVar("AnyFilter", Filter, SecondFilter)


class Known(NamedTuple):
    """The segments at one moment. A closed one without a filter is asked about every event.

    Second filters say no to most ids that pass the first ones by chance. In hundreds of ids and ten
    segments there are always some of these, and asking PostgreSQL about them is a round trip.
    """

    open: int
    filters: Mapping[int, Filter]
    second_filters: Mapping[int, SecondFilter]
    unfiltered: Sequence[int]

    @property
    def segments(self) -> list[int]:
        """All of them, in order."""
        return sorted((self.open, *self.filters, *self.unfiltered))

    def places(self, ids: HashedIds, positions: Sequence[int]) -> Places:
        """In which closed segments the ids at `positions` may be, and at which positions."""
        places: Places = dict.fromkeys(self.unfiltered, positions)
        passed = {
            segment: found
            for segment, key_filter in self.filters.items()
            if len(found := key_filter.find(ids))
        }
        for segment, found in (passed | self._passed_second(ids, passed)).items():
            if len(found):
                places[segment] = [positions[at] for at in found.tolist()]
        return places

    def _passed_second(
        self, ids: HashedIds, passed: Mapping[int, Positions]
    ) -> dict[int, Positions]:
        """Of those that passed the first filters, where there are second ones: all segments' ids
        are compared at once.
        """
        asked = [segment for segment in passed if segment in self.second_filters]
        if not asked:
            return {}
        stops = np.cumsum([len(passed[segment]) for segment in asked]).tolist()
        ids = ids.for_second(np.concatenate([passed[segment] for segment in asked]))
        hashes = ids.block_hashes.tolist()
        ranges = [slice(*each) for each in zip([0, *stops], stops, strict=False)]
        blocks = [
            self.second_filters[segment].read(hashes[of_segment])
            for segment, of_segment in zip(asked, ranges, strict=True)
        ]
        are_in = ids.are_in(b"".join(blocks))
        return {
            segment: passed[segment][are_in[of_segment]]
            for segment, of_segment in zip(asked, ranges, strict=True)
        }


class Noted:
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
        self._noted: dict[int, Noted] = {}
        # Of how many events others were told, by closed segment that has no filter yet.
        self._handed_over: dict[int, int] = {}
        self.replica = new_uuid()
        self.filter_missing = asyncio.Event()

    async def known(self) -> Known:
        """What is known; the first time it is read. UnavailableError."""
        return self._known or await self.refresh()

    async def refresh(self) -> Known:
        """Read which segments there are, and the filters that are new. UnavailableError."""
        async with self._database.transaction() as connection:
            rows = await repository.list_segments(connection)
            kept = self._within_bounds(rows)
            before = self._known
            filters = await self._load(
                connection,
                [row.segment for row in kept],
                before.filters if before else {},
                repository.load_key_filter,
                self._made,
            )
            second_filters = await self._load(
                connection,
                [row.segment for row in kept if row.second_filter_bytes is not None],
                before.second_filters if before else {},
                repository.load_second_key_filter,
                self._made_second,
            )
        return self._learn(rows, filters, second_filters)

    async def _load(
        self,
        connection: AsyncConnection,
        segments: Sequence[int],
        before: Mapping[int, AnyFilter],
        load: Callable[[AsyncConnection, int], Awaitable[bytes | None]],
        make: Callable[[bytes], AnyFilter],
    ) -> dict[int, AnyFilter]:
        """The filters of these segments; those that were there before are not read again."""
        filters: dict[int, AnyFilter] = {}
        for segment in segments:
            if segment in before:
                filters[segment] = before[segment]
            # One by one: together they would take as much memory as all filters have bytes.
            elif (stored := await load(connection, segment)) is not None:
                filters[segment] = await asyncio.to_thread(make, stored)
        return filters

    def _within_bounds(self, rows: Sequence[repository.SegmentRow]) -> list[repository.SegmentRow]:
        """The newest segments whose filters fit; an older one is asked directly, which is slow."""
        kept: list[repository.SegmentRow] = []
        left_bytes, left = self._filters_bytes_max, FILTERS_MAX
        for row in reversed(rows):
            if row.filter_bytes is None:
                continue
            left_bytes -= row.filter_bytes + (row.second_filter_bytes or 0)
            left -= 1 if row.second_filter_bytes is None else 2
            if left_bytes < 0 or left < 0:
                log.warning("key_filters_too_large", segment=row.segment)
                break
            kept.append(row)
        return kept

    def _made(self, stored: bytes) -> Filter:
        try:
            return PagedFilter(stored, self._directory)
        except OSError as error:
            log.warning("key_filter_stays_in_memory", error=repr(error))
            return MemoryFilter(stored)

    def _made_second(self, stored: bytes) -> SecondFilter:
        return SecondFilter(stored, self._directory)

    def _learn(
        self,
        rows: Sequence[repository.SegmentRow],
        filters: Mapping[int, Filter],
        second_filters: Mapping[int, SecondFilter],
    ) -> Known:
        closed = [row.segment for row in rows if row.close_time is not None]
        [opened] = [row.segment for row in rows if row.close_time is None]
        unfiltered = [segment for segment in closed if segment not in filters]
        known = Known(opened, filters, second_filters, unfiltered)
        if self._known is None or known.open >= self._known.open:
            # Another process may have read later than this one, and returned first.
            self._known = known
            self._page_out(known)
            self._noted = {at: each for at, each in self._noted.items() if at not in filters}
            without = [row.segment for row in rows if row.close_time and not row.filter_bytes]
            self._handed_over = {at: self._handed_over.get(at, 0) for at in without}
            if known.unfiltered:
                self.filter_missing.set()
        _SEGMENTS.labels("closed").set(len(closed))
        _SEGMENTS.labels("without_filter").set(len(known.unfiltered))
        return self._known

    def _page_out(self, known: Known) -> None:
        """Let the newest filters stay in memory, as many as fit: most retries are of late."""
        left_bytes = self._resident_bytes_max
        for segment in sorted(known.filters, reverse=True):
            left_bytes -= known.filters[segment].resident_bytes
            if left_bytes < 0:
                known.filters[segment].page_out()
        every: list[Filter | SecondFilter] = [
            *known.filters.values(),
            *known.second_filters.values(),
        ]
        resident_bytes = sum(each.resident_bytes for each in every)
        size_bytes = sum(each.size_bytes for each in every)
        _FILTER_BYTES.labels("memory").set(resident_bytes)
        _FILTER_BYTES.labels("file").set(size_bytes - resident_bytes)

    def note_stored(self, segment: int, ids: HashedIds) -> None:
        """These, all new, were stored in a segment just now."""
        if segment not in self._noted:
            near = range(segment - 1, segment + 2)
            self._noted = {at: noted for at, noted in self._noted.items() if at in near}
            self._noted[segment] = Noted(self._events_max)
        self._noted[segment].add(ids)

    def recent(self, segment: int, ids: HashedIds) -> Sequence[int]:
        """The positions of ids that this process seems to have stored in a segment.

        Only a hint, which spares a COPY that would fail; the segment's primary key decides.
        """
        if segment not in self._noted:
            return []
        found: list[int] = self._noted[segment].key_filter.find(ids).tolist()
        return found

    def noted(self, segment: int) -> Noted | None:
        """What this process has stored in a segment; None: nothing, or nobody needs it any more."""
        return self._noted.get(segment)

    async def hand_over(self) -> bool:
        """Let whoever makes filters have what was noted of closed segments without one.

        False: there is no such segment. UnavailableError.
        """
        for segment, told in list(self._handed_over.items()):
            noted = self._noted.get(segment)
            if noted is None or noted.count == told:
                continue
            # A commit whose end is seen only now adds to it: then it is told again.
            count, key_filter = noted.count, noted.key_filter.to_bytes()
            async with self._database.transaction() as connection:
                await repository.store_part(connection, segment, self.replica, count, key_filter)
            self._handed_over[segment] = count
        return bool(self._handed_over)
