"""Events field by field, as the hot path handles them: all of one field at once.

An object for each event would be made, read field by field, and thrown away several times on the
way from the call to PostgreSQL and NATS; a list for each field is what all of these take.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple, overload
from uuid import UUID

import numpy as np

from services.ingest.domain import Event, Tenant
from services.kit.events import EVENT_ID_BYTES


class Events(Sequence[Event]):
    """Valid events, a list for each field, all of one length; as a sequence, Event objects.

    See Event for what the fields hold.
    """

    __slots__ = (
        "amounts",
        "customer_ids",
        "ids",
        "metadata_jsons",
        "metrics",
        "tenants",
        "times_micros",
        "times_sent",
    )

    def __init__(
        self,
        ids: list[bytes],
        tenants: list[Tenant],
        metrics: list[str],
        amounts: list[str],
        customer_ids: list[str],
        times_micros: list[int],
        times_sent: list[bool],
        metadata_jsons: list[str],
    ) -> None:
        self.ids = ids
        self.tenants = tenants
        self.metrics = metrics
        self.amounts = amounts
        self.customer_ids = customer_ids
        self.times_micros = times_micros
        self.times_sent = times_sent
        self.metadata_jsons = metadata_jsons

    @classmethod
    def of(cls, events: Iterable[Event]) -> "Events":
        """From Event objects."""
        made = cls([], [], [], [], [], [], [], [])
        for event in events:
            for column, value in zip(made._columns(), _values(event), strict=True):
                column.append(value)
        return made

    @classmethod
    def joined(cls, parts: Iterable["Events"]) -> "Events":
        """All events of the parts, in order."""
        columns = [part._columns() for part in parts]
        if len(columns) == 1:
            return cls(*columns[0])
        if not columns:
            return cls.of([])
        return cls(*(list(chain.from_iterable(column)) for column in zip(*columns, strict=True)))

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, at: int) -> Event: ...
    @overload
    def __getitem__(self, at: slice) -> "Events": ...
    def __getitem__(self, at: int | slice) -> "Event | Events":
        values: list[Any] = [column[at] for column in self._columns()]
        return Events(*values) if isinstance(at, slice) else Event(*values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Events) and self._columns() == other._columns()

    __hash__ = None  # type: ignore[assignment] # the lists may change

    @property
    def tenant(self) -> Tenant | None:
        """The tenant of all of them; None when they are of several."""
        # Mostly one object (Tenant.of), which is found by identity.
        return self.tenants[0] if self.tenants.count(self.tenants[0]) == len(self) else None

    def by_tenant(self) -> dict[Tenant, "Events"]:
        """Each tenant's events, in order; tenants in order of their organization and mode."""
        if not self.ids:
            return {}
        if self.tenant is not None:
            return {self.tenant: self}
        positions: dict[Tenant, list[int]] = {}
        for at, tenant in enumerate(self.tenants):
            positions.setdefault(tenant, []).append(at)
        return {tenant: self.at(positions[tenant]) for tenant in sorted(positions)}

    def at(self, positions: Sequence[int]) -> "Events":
        """The events at some positions, in their order."""
        if len(positions) < 2:  # itemgetter of one gives the value alone
            return Events.of([self[at] for at in positions])
        take = itemgetter(*positions)
        return Events(*(list(take(column)) for column in self._columns()))

    def by_id(self) -> "Events":
        """In the order of their ids."""
        halves = np.frombuffer(b"".join(self.ids), dtype=">u8").reshape(-1, EVENT_ID_BYTES // 8)
        first = halves[:, 0].astype(np.uint64)
        if len(first) < 2 or (first[1:] > first[:-1]).all():
            return self
        return self.at(np.lexsort((halves[:, 1].astype(np.uint64), first)).tolist())

    def extend(self, more: "Events") -> None:
        """Add events."""
        for column, values in zip(self._columns(), more._columns(), strict=True):
            column += values

    def _columns(self) -> tuple[list[Any], ...]:
        return (
            self.ids,
            self.tenants,
            self.metrics,
            self.amounts,
            self.customer_ids,
            self.times_micros,
            self.times_sent,
            self.metadata_jsons,
        )


class Batch(NamedTuple):
    """Events that travel and are applied together."""

    batch_id: UUID
    events: Events


class StoredBatch(NamedTuple):
    """A batch as it was committed, by PostgreSQL's clock."""

    batch: Batch
    accept_time: datetime


def _values(event: Event) -> tuple[Any, ...]:
    return (
        event.event_id,
        event.tenant,
        event.metric,
        event.amount,
        event.customer_id,
        event.time_micros,
        event.time_sent,
        event.metadata_json,
    )
