"""PERCENTAGE: a share of each event's amount, and a fixed price an event."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Self

from services.invoicer.exact import ZERO, add, multiply, percent, readable, subtract, total
from services.invoicer.pricing.model import Rated
from services.invoicer.pricing.parameters import Parameters
from services.invoicer.pricing.usage import EventSums, MetricUsage
from services.kit.errors import FieldChecks, PreconditionError
from services.kit.money import format_decimal

FREE_EVENTS_DIGITS_MAX = 9
_KNOWN = ("rate", "fixedPerEvent", "freeEvents", "freeAmount", "minPerEvent", "maxPerEvent")


@dataclass(frozen=True, slots=True)
class Percentage:
    """`rate` % of the amounts and `fixed_per_event` an event.

    In the order in which events happened: the first `free_events` cost nothing. Of the amounts of
    the others the first `free_amount` costs no percentage. What an event costs is at least
    `min_per_event` (unless its amount is 0, or was all free) and at most `max_per_event`.
    """

    rate_percent: Decimal
    fixed_per_event: Decimal = ZERO
    free_events: int = 0
    free_amount: Decimal = ZERO
    min_per_event: Decimal | None = None
    max_per_event: Decimal | None = None
    name: ClassVar[str] = "PERCENTAGE"
    by_quantity: ClassVar[bool] = False

    @classmethod
    def parse(cls, parameters: Mapping[str, Any], field: str, checks: FieldChecks) -> Self:
        """Takes `rate` and, each left out or a decimal >= 0, the other parameters."""
        given = Parameters(parameters, field, checks, _KNOWN)
        free_events = given.optional("freeEvents", digits_max=FREE_EVENTS_DIGITS_MAX, scale_max=0)
        lowest, highest = given.optional("minPerEvent"), given.optional("maxPerEvent")
        fits = lowest is None or highest is None or lowest <= highest
        given.require(fits, "maxPerEvent", "must not be less than minPerEvent")
        return cls(
            rate_percent=given.required("rate"),
            fixed_per_event=given.optional("fixedPerEvent") or ZERO,
            free_events=int(free_events or 0),
            free_amount=given.optional("freeAmount", digits_max=38) or ZERO,
            min_per_event=lowest,
            max_per_event=highest,
        )

    def parameters(self) -> dict[str, Any]:
        """What parse takes, without what has its default."""
        values = {
            "rate": self.rate_percent,
            "fixedPerEvent": self.fixed_per_event or None,
            "freeEvents": Decimal(self.free_events) or None,
            "freeAmount": self.free_amount or None,
            "minPerEvent": self.min_per_event,
            "maxPerEvent": self.max_per_event,
        }
        return {name: format_decimal(value) for name, value in values.items() if value is not None}

    @property
    def needs_events(self) -> bool:
        """Whether the sum and the number of the events do not suffice."""
        limited = self.min_per_event is not None or self.max_per_event is not None
        return limited or self.free_events > 0

    def rate(self, usage: MetricUsage) -> Rated:
        """What all events cost. PreconditionError: it depends on each of them, and they are gone.

        Where nobody knows how many events there were, there is no fixed price.
        """
        sums = usage.event_sums
        if sums is None and usage.events is not None:
            walk = EventWalk(self, ZERO)
            walk.add(usage.events)
            sums = walk.sums()
        if sums is not None:
            return self._rated(sums, self._steps(sums))
        if self.needs_events:
            raise PreconditionError(
                "The price depends on each event, and not all events of the period are kept any "
                "more: let them be kept for longer (eventRetentionDays)",
                reason="events_dropped",
            )
        free = min(self.free_amount, usage.quantity)
        steps = _free_steps(usage.quantity, free) if self.free_amount else ()
        left = subtract(usage.quantity, free)
        return self._rated(EventSums(proportional=left, fixed=usage.event_count or 0), steps)

    def _steps(self, sums: EventSums) -> tuple[str, ...]:
        steps: tuple[str, ...] = ()
        if self.free_events:
            count, free = readable(Decimal(sums.count)), sums.count - sums.paid
            steps = (f"events: {count} - {free} free = {readable(Decimal(sums.paid))}",)
        if self.free_amount:
            steps += _free_steps(sums.given, sums.free_amount)
        return steps

    def _rated(self, sums: EventSums, steps: tuple[str, ...]) -> Rated:
        """Events that neither limit applies to are charged together: the price is linear there."""
        share = percent(sums.proportional, self.rate_percent)
        rate = f"{readable(sums.proportional)} x {format_decimal(self.rate_percent)} / 100"
        amounts, words = [share], [f"percentage: {rate} = {readable(share)}"]
        for label, count, price in (
            ("fixed price of events", sums.fixed, self.fixed_per_event),
            ("events at the least price", sums.at_least, self.min_per_event),
            ("events at the highest price", sums.at_most, self.max_per_event),
        ):
            if price and count:
                amount = multiply(Decimal(count), price)
                reckoning = f"{readable(Decimal(count))} x {format_decimal(price)}"
                amounts.append(amount)
                words.append(f"{label}: {reckoning} = {readable(amount)}")
        result = total(amounts)
        if len(amounts) > 1:
            words.append(f"{' + '.join(map(readable, amounts))} = {readable(result)}")
        formula = f"{format_decimal(self.rate_percent)} % of {readable(sums.proportional)}"
        if len(amounts) > 1:
            formula += f" + {readable(total(amounts[1:]))} by event"
        return Rated(result, formula, (*steps, *words))


class EventWalk:
    """Looks at events one after the other, in the order in which they happened, and keeps no more
    than what their price comes to: the same however many there are.
    """

    def __init__(self, price: Percentage, included_units: Decimal) -> None:
        self._price = price
        self._included_left = included_units
        self._free_left = price.free_amount
        self._paid = 0
        self._given = self._proportional = ZERO
        self._fixed = self._at_least = self._at_most = 0
        # Of all events, what they came with.
        self.count = 0
        self.total = ZERO

    def add(self, amounts: Iterable[Decimal]) -> None:
        """The next events."""
        for amount in amounts:
            self._add(amount)

    def _add(self, amount: Decimal) -> None:
        self.count += 1
        self.total = add(self.total, amount)
        included = min(self._included_left, amount)
        self._included_left = subtract(self._included_left, included)
        if self.count <= self._price.free_events:
            return
        amount = subtract(amount, included)
        self._paid += 1
        self._given = add(self._given, amount)
        free = min(self._free_left, amount)
        self._free_left = subtract(self._free_left, free)
        self._charge(subtract(amount, free))

    def _charge(self, amount: Decimal) -> None:
        given = self._price
        price = add(percent(amount, given.rate_percent), given.fixed_per_event)
        if given.max_per_event is not None and price > given.max_per_event:
            self._at_most += 1
        elif given.min_per_event is not None and price < given.min_per_event and amount > 0:
            self._at_least += 1
        else:
            self._proportional = add(self._proportional, amount)
            self._fixed += 1

    def sums(self) -> EventSums:
        """What they come to so far."""
        return EventSums(
            count=self.count,
            paid=self._paid,
            given=self._given,
            free_amount=subtract(self._price.free_amount, self._free_left),
            proportional=self._proportional,
            fixed=self._fixed,
            at_least=self._at_least,
            at_most=self._at_most,
        )


def _free_steps(amount: Decimal, free: Decimal) -> tuple[str, ...]:
    left = subtract(amount, free)
    return (f"amount: {readable(amount)} - {readable(free)} free = {readable(left)}",)
