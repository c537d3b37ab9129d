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
    sustained_s: float
    overload_s: float
    soak_s: float
    # What the table holds for rows about a full one.
    stored_events: int
    # Lists of them that are asked for, of each kind.
    list_questions: int
    # How many customers have usage for rows about questions; some 5,000 events each.
    aggregated_customers: int
    # How many customers are billed and simulated.
    billed_customers: int
    # How large a segment is for rows about closed ones.
    segment_events: int
    # How many webhooks a measurement delivers, how long one at a steady rate takes, and how many
    # others wait meanwhile.
    webhooks: int
    webhooks_s: float
    backlog: int


FULL = Plan(
    rounds=3,
    warm_up_s=2.0,
    measure_s=12.0,
    floor_warm_up_s=1.0,
    floor_s=5.0,
    visible_s=60.0,
    idle_s=15.0,
    sustained_s=60.0,
    overload_s=20.0,
    soak_s=600.0,
    stored_events=20_000_000,
    list_questions=500,
    aggregated_customers=10_000,
    billed_customers=10_000,
    segment_events=200_000,
    webhooks=20_000,
    webhooks_s=30.0,
    backlog=1_000_000,
)
QUICK = Plan(
    rounds=2,
    warm_up_s=0.7,
    measure_s=2.5,
    floor_warm_up_s=0.3,
    floor_s=1.0,
    visible_s=8.0,
    idle_s=4.0,
    sustained_s=5.0,
    overload_s=4.0,
    soak_s=15.0,
    stored_events=200_000,
    list_questions=50,
    aggregated_customers=200,
    billed_customers=200,
    segment_events=20_000,
    webhooks=2_000,
    webhooks_s=5.0,
    backlog=20_000,
)
PROFILE = Plan(
    rounds=1,
    warm_up_s=2.0,
    measure_s=20.0,
    floor_warm_up_s=0.0,
    floor_s=0.0,
    visible_s=0.0,
    idle_s=0.0,
    sustained_s=0.0,
    overload_s=0.0,
    soak_s=0.0,
    stored_events=0,
    list_questions=0,
    aggregated_customers=0,
    billed_customers=0,
    segment_events=0,
    webhooks=0,
    webhooks_s=0.0,
    backlog=0,
)
