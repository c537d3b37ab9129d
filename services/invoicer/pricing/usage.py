"""What was used of a metric, and what is left of it when included units have come off."""

from dataclasses import dataclass, replace
from decimal import Decimal

from services.invoicer.exact import ZERO, readable, subtract


@dataclass(frozen=True, slots=True)
class Part:
    """The quantity that has one of the prices of a metric. `label` is for people."""

    label: str
    quantity: Decimal


@dataclass(frozen=True, slots=True)
class EventSums:
    """What a price of each event comes to when events are looked at one after the other, in the
    order in which they happened; included units have come off.

    `count` events, `paid` of which are not free, sum to `given`; `free_amount` of that was free.
    `proportional` is charged by percentage; so many events have the `fixed` price, are charged
    `at_least` or `at_most`.
    """

    count: int = 0
    paid: int = 0
    given: Decimal = ZERO
    free_amount: Decimal = ZERO
    proportional: Decimal = ZERO
    fixed: int = 0
    at_least: int = 0
    at_most: int = 0


@dataclass(frozen=True, slots=True)
class MetricUsage:
    """How much of a metric was used; of the rest only what its pricing model asks for.

    `unit` is for people and may be empty. `event_count`: how many events. `events`: their amounts,
    in the order in which they happened; `event_sums`: what the price makes of them. `parts`: the
    quantity by price. None where nobody knows. `adds_up`: whether the quantities of consecutive
    times sum to that of the whole. `events_dropped`: the price depends on each event, and not all
    of them are kept any more.
    """

    quantity: Decimal
    unit: str = ""
    event_count: int | None = None
    events: tuple[Decimal, ...] | None = None
    parts: tuple[Part, ...] | None = None
    adds_up: bool = True
    event_sums: EventSums | None = None
    events_dropped: bool = False


def take_off(usage: MetricUsage, included_units: Decimal) -> tuple[MetricUsage, tuple[str, ...]]:
    """What is left to pay of `usage`, and the steps.

    Included units come off the earliest events, and off the parts in their order. An event keeps
    counting as one. Off `event_sums` they have come already.
    """
    if included_units == 0:
        return usage, ()
    free = max(min(usage.quantity, included_units), ZERO)
    left = replace(usage, quantity=subtract(usage.quantity, free))
    steps = [_step("", usage.quantity, free)]
    if usage.events is not None:
        left = replace(left, events=_off_amounts(usage.events, free))
    if usage.parts is not None:
        amounts = _off_amounts(tuple(part.quantity for part in usage.parts), free)
        pairs = zip(usage.parts, amounts, strict=True)
        left = replace(left, parts=tuple(Part(part.label, amount) for part, amount in pairs))
        steps += [
            _step(f"{part.label}: ", part.quantity, subtract(part.quantity, amount))
            for part, amount in zip(usage.parts, amounts, strict=True)
            if amount != part.quantity
        ]
    return left, tuple(steps)


def _off_amounts(amounts: tuple[Decimal, ...], free: Decimal) -> tuple[Decimal, ...]:
    """The amounts without the first `free` of them."""
    left = []
    for amount in amounts:
        taken = min(amount, free)
        free = subtract(free, taken)
        left.append(subtract(amount, taken))
    return tuple(left)


def _step(label: str, quantity: Decimal, free: Decimal) -> str:
    rest = subtract(quantity, free)
    return f"{label}{readable(quantity)} - {readable(free)} included = {readable(rest)}"
