"""The events of all calls that are stored in one transaction, and what became of each."""

from collections.abc import Iterable, Iterator, Sequence
from uuid import UUID

from services.ingest.copy_format import Rows, encode_rows
from services.ingest.domain import ALL_ACCEPTED, Outcome, Outcomes, StoredContent, outcome_of
from services.ingest.events import Events
from services.ingest.queue import Call
from services.kit.ids import new_uuid
from services.kit.messaging import PAYLOAD_BYTES_MAX

# A quarter is left for what a message has besides its events.
BATCH_BYTES_MAX = PAYLOAD_BYTES_MAX * 3 // 4


class Group:
    """Events in the order in which they came; an event's ordinal is its position here.

    `events` are those that may be new, each id once: the first copy of an id wins.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls
        self.events = self._all = Events.joined(call.events for call in calls)
        self.batch_ids: list[UUID] = []
        # The ordinal of the first copy of each id; empty while there is one copy of each.
        self._first: dict[bytes, int] = {}
        self._stored: dict[bytes, StoredContent] = {}
        if len(set(self._all.ids)) < len(self._all):
            for ordinal, event_id in enumerate(self._all.ids):
                self._first.setdefault(event_id, ordinal)
            self.events = self._all.at(list(self._first.values()))

    def learn(self, stored: Iterable[StoredContent]) -> None:
        """Some were stored before, or by an earlier try whose end nobody saw."""
        found = {content.event_id: content for content in stored}
        if found:
            self._stored |= found
            ids = self.events.ids
            self.events = self.events.at([at for at in range(len(ids)) if ids[at] not in found])

    def rows(self) -> Rows:
        """Rows of `events`: by id, so that index pages are met once, and nobody deadlocks."""
        return encode_rows(self.events.by_id(), BATCH_BYTES_MAX, self._batch_ids())

    def known_batch_ids(self) -> set[UUID]:
        """The batches of the events that were found stored."""
        return {content.batch_id for content in self._stored.values() if content.batch_id}

    def outcomes(self) -> list[Outcomes]:
        """What each call is to be told, in the order of the calls, once `events` are stored."""
        by_ordinal = dict(self._not_accepted()) if self._stored or self._first else {}
        if not by_ordinal:
            return [ALL_ACCEPTED] * len(self._calls)
        return list(self._split(by_ordinal))

    def _not_accepted(self) -> Iterator[tuple[int, Outcome]]:
        own_batches = set(self.batch_ids)
        for ordinal, event_id in enumerate(self._all.ids):
            stored = self._stored.get(event_id)
            if stored is not None and stored.batch_id not in own_batches:
                yield ordinal, outcome_of(self._all[ordinal], stored)
            elif (first := self._first.get(event_id, ordinal)) != ordinal:
                content = StoredContent.of(self._all[first])
                yield ordinal, outcome_of(self._all[ordinal], content)

    def _split(self, by_ordinal: dict[int, Outcome]) -> Iterator[Outcomes]:
        start = 0
        for call in self._calls:
            stop = start + len(call.events)
            yield {at - start: by_ordinal[at] for at in range(start, stop) if at in by_ordinal}
            start = stop

    def _batch_ids(self) -> Iterator[UUID]:
        """The same ids at each try: a group that was stored after all is recognized by them."""
        yield from self.batch_ids
        while True:
            self.batch_ids.append(new_uuid())
            yield self.batch_ids[-1]
