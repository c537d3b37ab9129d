"""PERCENTAGE: a share of each event's amount, and a fixed price an event."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Self

from services.invoicer.exact import ZERO, add, multiply, percent, readable, subtract, total
from services.invoicer.pricing.model import Rated
from services.invoicer.pricing.parameters import Parameters
from services.invoicer.pricing.usage import MetricUsage
from services.kit.errors import FieldChecks
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
        """What all events cost. Without `usage.events` the model must not need them.

        Where nobody knows how many events there were, there is no fixed price.
        """
        if usage.events is not None:
            return self._rate_each(usage.events)
        if self.needs_events:
            raise ValueError("the price depends on each event")
        free = min(self.free_amount, usage.quantity)
        steps = _free_steps(usage.quantity, free) if self.free_amount else ()
        sums = _Sums(proportional=subtract(usage.quantity, free), fixed=usage.event_count or 0)
        return self._rated(sums, steps)

    def _rate_each(self, events: Sequence[Decimal]) -> Rated:
        paid = events[self.free_events :]
        given = total(paid)
        sums, left = _Sums(), self.free_amount
        for amount in paid:
            free = min(left, amount)
            left = subtract(left, free)
            self._add(sums, subtract(amount, free))
        steps: tuple[str, ...] = ()
        if self.free_events:
            count, free_count = readable(Decimal(len(events))), len(events) - len(paid)
            steps = (f"events: {count} - {free_count} free = {readable(Decimal(len(paid)))}",)
        if self.free_amount:
            steps += _free_steps(given, subtract(self.free_amount, left))
        return self._rated(sums, steps)

    def _add(self, sums: "_Sums", amount: Decimal) -> None:
        price = add(percent(amount, self.rate_percent), self.fixed_per_event)
        if self.max_per_event is not None and price > self.max_per_event:
            sums.at_most += 1
        elif self.min_per_event is not None and price < self.min_per_event and amount > 0:
            sums.at_least += 1
        else:
            sums.proportional = add(sums.proportional, amount)
            sums.fixed += 1

    def _rated(self, sums: "_Sums", steps: tuple[str, ...]) -> Rated:
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


@dataclass(slots=True)
class _Sums:
    """Amounts charged by percentage, and how many events pay what."""

    proportional: Decimal = ZERO
    fixed: int = 0
    at_least: int = 0
    at_most: int = 0


def _free_steps(amount: Decimal, free: Decimal) -> tuple[str, ...]:
    left = subtract(amount, free)
    return (f"amount: {readable(amount)} - {readable(free)} free = {readable(left)}",)
