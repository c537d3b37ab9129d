"""What is known of the events of one series in a quarter of an hour."""

from decimal import Decimal
from typing import TypeVar

from services.kit.money import EXACT


class Bucket:
    """The usage of a cell: mutable, because it is added to for every event."""

    __slots__ = (
        "amount_max",
        "amount_min",
        "amount_sum",
        "amounts",
        "event_count",
        "latest_event_id",
        "latest_time_us",
        "latest_value",
        "values",
    )

    def __init__(
        self,
        event_count: int,
        amount_sum: Decimal,
        amount_min: Decimal,
        amount_max: Decimal,
        latest_value: Decimal,
        latest_time_us: int,
        latest_event_id: bytes,
    ) -> None:
        self.event_count = event_count
        self.amount_sum = amount_sum
        self.amount_min = amount_min
        self.amount_max = amount_max
        self.latest_value = latest_value
        self.latest_time_us = latest_time_us
        self.latest_event_id = latest_event_id
        # Events by key of their value, and by rounded amount (details.py); None: not kept.
        self.values: dict[bytes, int] | None = None
        self.amounts: dict[Decimal, int] | None = None

    @classmethod
    def of(cls, amount: Decimal, time_us: int, event_id: bytes) -> "Bucket":
        """With one event."""
        return cls(1, amount, amount, amount, amount, time_us, event_id)

    def add(self, amount: Decimal, time_us: int, event_id: bytes) -> None:
        """Count one more event."""
        self.event_count += 1
        self.amount_sum += amount
        if amount < self.amount_min:
            self.amount_min = amount
        elif amount > self.amount_max:
            self.amount_max = amount
        if time_us >= self.latest_time_us and (
            time_us > self.latest_time_us or event_id > self.latest_event_id
        ):
            self.latest_time_us = time_us
            self.latest_event_id = event_id
            self.latest_value = amount

    def merge(self, other: "Bucket") -> None:
        """Count all that another bucket of the same quarter of an hour has counted."""
        self.event_count += other.event_count
        self.amount_sum = EXACT.add(self.amount_sum, other.amount_sum)
        self.amount_min = min(self.amount_min, other.amount_min)
        self.amount_max = max(self.amount_max, other.amount_max)
        if (other.latest_time_us, other.latest_event_id) > (
            self.latest_time_us,
            self.latest_event_id,
        ):
            self.latest_time_us = other.latest_time_us
            self.latest_event_id = other.latest_event_id
            self.latest_value = other.latest_value
        self.values = _added(self.values, other.values)
        self.amounts = _added(self.amounts, other.amounts)

    def add_value(self, key: bytes) -> None:
        """Count the value of the event that was added last."""
        if self.values is None:
            self.values = {}
        self.values[key] = self.values.get(key, 0) + 1

    def add_amount(self, amount: Decimal) -> None:
        """Count the rounded amount of the event that was added last."""
        if self.amounts is None:
            self.amounts = {}
        self.amounts[amount] = self.amounts.get(amount, 0) + 1


_Key = TypeVar("_Key")


def _added(one: dict[_Key, int] | None, other: dict[_Key, int] | None) -> dict[_Key, int] | None:
    if one is None or other is None:
        return one or other
    return {key: one.get(key, 0) + other.get(key, 0) for key in one.keys() | other.keys()}
