"""How long everything takes: the whole benchmark, or the quick one (under 3 minutes)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """`rounds` measurements a row, with a floor before, between and after them."""

    rounds: int
    warm_up_s: float
    measure_s: float
    floor_warm_up_s: float
    floor_s: float
    visible_s: float
    idle_s: float


FULL = Plan(
    rounds=3,
    warm_up_s=2.0,
    measure_s=12.0,
    floor_warm_up_s=1.0,
    floor_s=5.0,
    visible_s=60.0,
    idle_s=15.0,
)
QUICK = Plan(
    rounds=2,
    warm_up_s=0.7,
    measure_s=2.5,
    floor_warm_up_s=0.3,
    floor_s=1.0,
    visible_s=8.0,
    idle_s=4.0,
)
PROFILE = Plan(
    rounds=1,
    warm_up_s=2.0,
    measure_s=20.0,
    floor_warm_up_s=0.0,
    floor_s=0.0,
    visible_s=0.0,
    idle_s=0.0,
)
