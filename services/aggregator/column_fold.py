"""Folds events that come field by field (EventColumns), all at once, in numpy. Pure; exact.

For metrics that are counted by customer alone: no dimensions, values or percentiles. Amounts are
summed as whole numbers of their smallest decimal place: in 64 bits where no sum can leave them,
otherwise as Python's integers.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from decimal import Decimal, InvalidOperation
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from usageflow.events.v1.events_pb2 import EventColumns

from services.aggregator.bucket import Bucket
from services.aggregator.domain import QUARTER_US
from services.kit.events import EVENT_ID_BYTES
from services.kit.money import EXACT

_INT64_MAX = 2**63 - 1

Int64s = NDArray[np.int64]


class Counted(NamedTuple):
    """What was counted, each figure of all cells in a list of its own; amounts as text."""

    metric_ids: list[int]
    customer_ids: list[str]
    # Of an hour, as numbers since 1970.
    quarters: list[int]
    event_counts: list[int]
    sums: list[str]
    minima: list[str]
    maxima: list[str]
    latest_values: list[str]
    latest_times_us: list[int]
    latest_event_ids: list[bytes]

    @classmethod
    def of(cls, buckets: Mapping[tuple[int, str, Any, int], Bucket]) -> "Counted":
        """Of buckets by metric id, customer, anything and quarter."""
        figures = buckets.values()
        return cls(
            [metric_id for metric_id, _customer, _values, _quarter in buckets],
            [customer_id for _metric, customer_id, _values, _quarter in buckets],
            [quarter for _metric, _customer, _values, quarter in buckets],
            [bucket.event_count for bucket in figures],
            [str(bucket.amount_sum) for bucket in figures],
            [str(bucket.amount_min) for bucket in figures],
            [str(bucket.amount_max) for bucket in figures],
            [str(bucket.latest_value) for bucket in figures],
            [bucket.latest_time_us for bucket in figures],
            [bucket.latest_event_id for bucket in figures],
        )

    def buckets(self) -> Iterator[tuple[tuple[int, str, int], Bucket]]:
        """By metric id, customer and quarter."""
        for metric_id, customer_id, quarter, *figures in zip(*self, strict=True):
            count, total, least, most, latest, *last = figures
            amounts = (EXACT.create_decimal(total), Decimal(least), Decimal(most), Decimal(latest))
            yield (metric_id, customer_id, quarter), Bucket(count, *amounts, *last)

    def plus(self, other: "Counted") -> "Counted":
        """Both, one after the other; they have no cell in common."""
        both: Iterator[tuple[list[Any], list[Any]]] = zip(self, other, strict=True)
        return Counted(*(mine + others for mine, others in both))


NOTHING = Counted([], [], [], [], [], [], [], [], [], [])


class _Field:
    """A field of all events: places in a table that each batch adds its values to."""

    def __init__(self) -> None:
        self.places: dict[Any, int] = {}
        self._table: list[int] = []
        self._indexes = array("q")
        # Of each batch's values in the table.
        self._begins: list[int] = []
        self._ends: list[int] = []

    def add(self, values: Iterable[Any], indexes: Sequence[int], count: int) -> None:
        """A batch's; no indexes: all have the first value."""
        if len(indexes) not in (0, count):
            raise ValueError(f"{len(indexes)} indexes of {count} events")
        self._begins.append(len(self._table))
        places = self.places
        self._table += [places.setdefault(value, len(places)) for value in values]
        self._ends.append(len(self._table))
        self._indexes.extend(indexes or repeat(0, count))

    def of_events(self, counts: list[int]) -> Int64s:
        """Each event's place among the values; `counts`: how many events each batch has."""
        at = np.frombuffer(self._indexes, np.int64) + np.repeat(self._begins, counts)
        if (at >= np.repeat(self._ends, counts)).any():
            raise IndexError("an event has a value that its batch has not")
        of_events: Int64s = np.array(self._table, np.int64)[at]
        return of_events


class ColumnFold:
    """Gathers events, then counts them all at once."""

    def __init__(self) -> None:
        self._metrics, self._customers, self._amounts = _Field(), _Field(), _Field()
        self._times_us = array("q")
        self._event_ids: list[bytes] = []
        self._counts: list[int] = []

    @property
    def size(self) -> int:
        """How many customers there are."""
        return len(self._customers.places)

    @property
    def metric_ids(self) -> Set[int]:
        """Those that were counted."""
        return self._metrics.places.keys()

    def add(self, columns: EventColumns, metric_ids: Mapping[str, int]) -> None:
        """Count events of one tenant; `metric_ids` has all their metrics."""
        count = event_count(columns)
        metrics = [metric_ids[metric] for metric in columns.metrics]
        self._metrics.add(metrics, columns.metric_indexes, count)
        self._customers.add(columns.customer_ids, columns.customer_indexes, count)
        self._amounts.add(columns.amounts, columns.amount_indexes, count)
        times = columns.times_unix_micros
        if count and len(times) not in (1, count):
            raise ValueError(f"{len(times)} times of {count} events")
        self._times_us.extend(times if len(times) == count else repeat(times[0], count))
        self._event_ids.append(columns.event_ids)
        self._counts.append(count)

    def counted(self) -> Counted:
        """What was counted."""
        if not any(self._counts):
            return NOTHING
        times = np.frombuffer(self._times_us, np.int64)
        ids = b"".join(self._event_ids)
        customers, quarter_at = list(self._customers.places), times // QUARTER_US
        first_quarter = int(quarter_at.min())
        quarters = int(quarter_at.max()) - first_quarter + 1
        metrics = self._metrics.of_events(self._counts)
        cells = metrics * len(customers) + self._customers.of_events(self._counts)
        cells = cells * quarters + (quarter_at - first_quarter)
        order = np.argsort(cells, kind="stable")
        cells = cells[order]
        starts = np.flatnonzero(np.concatenate(([True], cells[1:] != cells[:-1])))
        last = order[_latest(starts, times[order], ids, order)]
        amounts = list(self._amounts.places)
        numbers, exponent = _whole_numbers(amounts, len(cells))
        places = self._amounts.of_events(self._counts)
        values = numbers[places[order]]
        as_sent = dict(zip(numbers.tolist(), amounts, strict=True))
        series, quarter_of_cell = np.divmod(cells[starts], quarters)
        metric_of_cell, customer_of_cell = np.divmod(series, len(customers))
        metric_ids = list(self._metrics.places)
        return Counted(
            [metric_ids[place] for place in metric_of_cell.tolist()],
            [customers[place] for place in customer_of_cell.tolist()],
            (quarter_of_cell + first_quarter).tolist(),
            np.diff(starts, append=len(cells)).tolist(),
            [_text(total, exponent) for total in np.add.reduceat(values, starts).tolist()],
            [as_sent[least] for least in np.minimum.reduceat(values, starts).tolist()],
            [as_sent[most] for most in np.maximum.reduceat(values, starts).tolist()],
            [amounts[place] for place in places[last].tolist()],
            times[last].tolist(),
            [ids[at : at + EVENT_ID_BYTES] for at in (last * EVENT_ID_BYTES).tolist()],
        )


def _text(number: int, exponent: int) -> str:
    if not exponent and number <= _INT64_MAX:
        return str(number)
    return str(Decimal(number).scaleb(exponent, EXACT).normalize(EXACT))


def event_count(columns: EventColumns) -> int:
    """How many events there are."""
    return len(columns.event_ids) // EVENT_ID_BYTES


def _latest(starts: Int64s, times: Int64s, ids: bytes, order: Int64s) -> Int64s:
    """Of each cell, where in `order` its latest event is; of several, that with the largest id."""
    sizes = np.diff(starts, append=len(times))
    halves = np.frombuffer(ids, ">u8").reshape(-1, 2).astype(np.uint64)[order]
    candidates = times == np.repeat(np.maximum.reduceat(times, starts), sizes)
    for half in (halves[:, 0], halves[:, 1]):
        among = np.where(candidates, half, np.uint64(0))
        candidates &= among == np.repeat(np.maximum.reduceat(among, starts), sizes)
    positions: Int64s = np.maximum.reduceat(np.where(candidates, np.arange(len(times)), -1), starts)
    return positions


def _whole_numbers(amounts: list[str], count: int) -> tuple[NDArray[Any], int]:
    """The amounts as multiples of a power of ten, and its exponent; so that `count` of them can
    be added up.
    """
    parts = [amount.partition(".") for amount in amounts]
    places = max(len(fraction) for _whole, _point, fraction in parts)
    try:
        numbers = [int(whole + fraction.ljust(places, "0")) for whole, _point, fraction in parts]
    except ValueError as error:
        raise InvalidOperation("an amount is no decimal") from error
    small = max(numbers) <= _INT64_MAX // count
    return np.array(numbers, np.int64 if small else object), -places
