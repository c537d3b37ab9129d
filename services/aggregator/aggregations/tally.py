"""What is known of some buckets together."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Part = Literal["event_count", "amount_sum", "amount_min", "amount_max", "latest_value"]


@dataclass(frozen=True, slots=True)
class Tally:
    """Only the parts that were asked for are set; all stay as they are here without events."""

    event_count: int = 0
    amount_sum: Decimal = Decimal(0)
    amount_min: Decimal = Decimal(0)
    amount_max: Decimal = Decimal(0)
    # Amount of the event that happened last; of several at once, the one with the highest id.
    latest_value: Decimal = Decimal(0)
    # Different values of the metric's property; only of UNIQUE_COUNT.
    unique_count: int = 0
