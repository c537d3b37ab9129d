"""The events of all calls that are stored in one transaction, and what became of each."""

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from uuid import UUID

from services.ingest.copy_format import FLAG_COPY, FLAG_TIME_SENT, Rows, encode_rows
from services.ingest.domain import (
    ALL_ACCEPTED,
    Batch,
    Difference,
    Event,
    Outcome,
    Outcomes,
    outcome_of,
)
from services.ingest.queue import Call
from services.kit.ids import new_uuid
from services.kit.messaging import PAYLOAD_BYTES_MAX

# A quarter is left for what a message has besides its events.
BATCH_BYTES_MAX = PAYLOAD_BYTES_MAX * 3 // 4

_event_id = attrgetter("event_id")


class Group:
    """Events in the order in which they came; an event's ordinal is its position here."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls
        self.events: list[Event] = [event for call in calls for event in call.events]
        self.batch_ids: list[UUID] = []

    def has_copies(self) -> bool:
        """Whether one id comes twice."""
        return len(set(map(_event_id, self.events))) < len(self.events)

    def new_rows(self) -> Rows:
        """Rows for `copy`: by id, so that index pages are met once, and nobody deadlocks."""
        ordered = sorted(self.events, key=_event_id)
        return encode_rows(ordered, BATCH_BYTES_MAX, self._batch_ids())

    def staged_rows(self) -> Rows:
        """Rows for `merge`: in the order of arrival, since the first copy of an id wins."""
        flags = list(self._flags())
        return encode_rows(self.events, BATCH_BYTES_MAX, self._batch_ids(), flags)

    def outcomes(self, differences: Iterable[Difference]) -> list[Outcomes]:
        """What each call's future is to tell, in the order of the calls."""
        by_ordinal = {difference.ordinal: outcome_of(difference) for difference in differences}
        if not by_ordinal:
            return [ALL_ACCEPTED] * len(self._calls)
        return list(self._split(by_ordinal))

    def accepted(self, batches: Iterable[Batch], differences: Iterable[Difference]) -> list[Batch]:
        """The batches of `staged_rows` with only those events that were stored now."""
        refused = {difference.ordinal for difference in differences}
        if not refused:
            return list(batches)
        kept, ordinal = [], 0
        for batch in batches:
            events = [event for at, event in enumerate(batch.events, ordinal) if at not in refused]
            ordinal += len(batch.events)
            kept.append(Batch(batch.batch_id, events))
        return kept

    def _split(self, by_ordinal: dict[int, Outcome]) -> Iterator[Outcomes]:
        start = 0
        for call in self._calls:
            stop = start + len(call.events)
            yield {at - start: by_ordinal[at] for at in range(start, stop) if at in by_ordinal}
            start = stop

    def _flags(self) -> Iterator[int]:
        seen: set[bytes] = set()
        for event in self.events:
            copy = FLAG_COPY if event.event_id in seen else 0
            seen.add(event.event_id)
            yield copy | (FLAG_TIME_SENT if event.time_sent else 0)

    def _batch_ids(self) -> Iterator[UUID]:
        """The same ids at each try: a group that was stored after all is recognized by them."""
        yield from self.batch_ids
        while True:
            self.batch_ids.append(new_uuid())
            yield self.batch_ids[-1]
