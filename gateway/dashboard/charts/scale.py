"""Axes that people can read."""

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final

TICKS_MAX: Final = 5
_STEPS: Final = (Decimal(1), Decimal(2), Decimal("2.5"), Decimal(5), Decimal(10))
# Places are drawn, not billed.
_DRAWING: Final = Context(prec=30, rounding=ROUND_HALF_EVEN)
_PLACES: Final = Decimal("0.01")


def nice_maximum(largest: Decimal, ticks: int = TICKS_MAX - 1) -> tuple[Decimal, Decimal]:
    """The axis' end and the step between its lines, for values up to `largest`.

    Steps are 1, 2, 2.5 or 5 times a power of ten; nothing to show: 1.
    """
    if largest <= 0:
        return Decimal(1), Decimal(1)
    rough = _DRAWING.divide(largest, Decimal(ticks))
    power = Decimal(1).scaleb(rough.adjusted())
    step = next(power * each for each in _STEPS if power * each >= rough)
    lines = (largest / step).to_integral_value(rounding="ROUND_CEILING")
    return step * lines, step


def percent(part: Decimal | int, whole: Decimal | int) -> Decimal:
    """How much of the whole, in percent to two places; of nothing: 0."""
    if not whole:
        return Decimal(0)
    share = _DRAWING.divide(Decimal(part) * 100, Decimal(whole))
    return share.quantize(_PLACES, context=_DRAWING)


def thinned(count: int, labels_max: int) -> Sequence[int]:
    """Which of `count` places get a label: evenly spaced, the first among them."""
    every = max(1, -(-count // labels_max))
    return range(0, count, every)
