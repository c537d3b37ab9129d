"""Folds events that come field by field (EventColumns), all at once, in numpy. Pure; exact.

For metrics that are counted by customer alone: no dimensions, values or percentiles. Amounts are
summed as whole numbers of their smallest decimal place: in 64 bits where no sum can leave them,
otherwise as Python's integers.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
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


class _Part(NamedTuple):
    """Some events: for each the places of its series, quarter and amount."""

    series: Int64s
    quarters: Int64s
    amounts: Int64s
    times_us: Int64s
    event_ids: bytes


class ColumnFold:
    """Gathers events and makes buckets of them."""

    def __init__(self) -> None:
        # Metric id and customer, quarters of an hour since 1970, and amounts, each with its place.
        self._series: dict[tuple[int, str], int] = {}
        self._quarters: dict[int, int] = {}
        self._amounts: dict[str, int] = {}
        self._parts: list[_Part] = []

    @property
    def size(self) -> int:
        """How many series there are."""
        return len(self._series)

    def add(self, columns: EventColumns, metric_ids: Mapping[str, int]) -> None:
        """Count events of one tenant; `metric_ids` has all their metrics."""
        count = event_count(columns)
        times = np.array(columns.times_unix_micros, np.int64)
        quarters, quarter_of_time = np.unique(times // QUARTER_US, return_inverse=True)
        places = [_place(self._quarters, quarter) for quarter in quarters.tolist()]
        amounts = [_place(self._amounts, amount) for amount in columns.amounts]
        self._parts.append(
            _Part(
                self._places_of_series(columns, metric_ids, count),
                _spread(places, quarter_of_time, count),
                _spread(amounts, columns.amount_indexes, count),
                np.broadcast_to(times, count),
                columns.event_ids,
            )
        )

    def _places_of_series(
        self, columns: EventColumns, metric_ids: Mapping[str, int], count: int
    ) -> Int64s:
        customers = columns.customer_ids
        metrics = [metric_ids[metric] for metric in columns.metrics]
        if len(metrics) == 1:
            places = [_place(self._series, (metrics[0], customer)) for customer in customers]
            return _spread(places, columns.customer_indexes, count)
        pairs = _indexes(columns.metric_indexes, count) * len(customers)
        pairs += _indexes(columns.customer_indexes, count)
        distinct, pair_of_event = np.unique(pairs, return_inverse=True)
        places = [
            _place(self._series, (metrics[metric], customers[customer]))
            for metric, customer in (divmod(pair, len(customers)) for pair in distinct.tolist())
        ]
        return _spread(places, pair_of_event, count)

    def buckets(self) -> dict[tuple[int, str, int], Bucket]:
        """What was counted, by metric id, customer and quarter."""
        if not self._parts:
            return {}
        series, quarters, amounts, times = (
            np.concatenate(arrays) for arrays in list(zip(*self._parts, strict=True))[:4]
        )
        ids = b"".join(part.event_ids for part in self._parts)
        cells = series * len(self._quarters) + quarters
        order = np.argsort(cells, kind="stable")
        cells = cells[order]
        starts = np.flatnonzero(np.concatenate(([True], cells[1:] != cells[:-1])))
        last = order[_latest(starts, times[order], ids, order)]
        numbers, exponent = _whole_numbers(list(self._amounts), len(cells))
        values = numbers[amounts[order]]
        figures = zip(
            cells[starts].tolist(),
            np.diff(starts, append=len(cells)).tolist(),
            np.add.reduceat(values, starts).tolist(),
            np.minimum.reduceat(values, starts).tolist(),
            np.maximum.reduceat(values, starts).tolist(),
            numbers[amounts[last]].tolist(),
            times[last].tolist(),
            last.tolist(),
            strict=True,
        )
        series_at, quarter_at = list(self._series), list(self._quarters)
        as_sent = dict(zip(numbers.tolist(), self._amounts, strict=True))
        return {
            (*series_at[cell // len(quarter_at)], quarter_at[cell % len(quarter_at)]): Bucket(
                count,
                _scaled(total, exponent) if exponent else Decimal(total),
                Decimal(as_sent[least]),
                Decimal(as_sent[most]),
                Decimal(as_sent[latest]),
                time_us,
                ids[at * EVENT_ID_BYTES : (at + 1) * EVENT_ID_BYTES],
            )
            for cell, count, total, least, most, latest, time_us, at in figures
        }


def _scaled(number: int, exponent: int) -> Decimal:
    return Decimal(number).scaleb(exponent, EXACT).normalize(EXACT)


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


def _place(places: dict[Any, int], value: Any) -> int:
    return places.setdefault(value, len(places))


def _spread(places: list[int], indexes: Any, count: int) -> Int64s:
    """Each event's place; no indexes: the first one."""
    table = np.array(places, np.int64)
    if len(places) == 1:
        return np.full(count, table[0])
    return table[_indexes(indexes, count)]


def _indexes(indexes: Any, count: int) -> Int64s:
    return np.array(indexes, np.int64) if len(indexes) else np.zeros(count, np.int64)
