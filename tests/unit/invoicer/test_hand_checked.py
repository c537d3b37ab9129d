"""Bills against figures that were worked out by hand; the arithmetic beside each is true, too."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from math import floor

import pytest

from services.invoicer.changes import Timing, begin_at, changed, first_phases
from services.invoicer.checks import MetricPriceInput, PlanInput, check_plan
from services.invoicer.closing import OpenPeriod
from services.invoicer.discounts import Discount
from services.invoicer.domain import LineKind, Plan, PlanContent, Subscription, SubscriptionStatus
from services.invoicer.lines import usage_line
from services.invoicer.periods import BillingAnchor, BillingPeriod, Period
from services.invoicer.pricing.dimensional import Dimensional
from services.invoicer.pricing.usage import MetricUsage
from services.invoicer.taxes import TaxRate
from services.invoicer.term_checks import DiscountInput
from services.kit.database import TenantKey
from tests.unit.invoicer.calculator import evaluate, number
from tests.unit.invoicer.hand_checked import quantities, sums, times

JANUARY = Period(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
LINES = (LineKind.DISCOUNT, LineKind.MAXIMUM, LineKind.MINIMUM, LineKind.TAX)


def check_arithmetic(text: str, amount: str) -> None:
    """Each sentence is true, and the last one comes to the amount."""
    result = Fraction(0)
    for sentence in text.split("; "):
        shown, rounds, outcome = sentence.partition(" ~ ")
        if rounds:
            digits = len(amount.partition(".")[2])
            expected = Fraction(floor(evaluate(shown) * 10**digits + Fraction(1, 2)), 10**digits)
            result = number(outcome)
        else:
            shown, _, outcome = sentence.partition(" = ")
            expected, result = evaluate(shown), evaluate(outcome)
        assert expected == result, sentence
    assert result == Fraction(amount), text


def plan(currency: str = "USD", **changes: object) -> PlanContent:
    given = {"name": "P", "currency": currency, "base_price": "0", "billing_period": "MONTHLY"}
    return check_plan(PlanInput(**{"metrics": [], **given, **changes}), {})  # type: ignore[arg-type]


def price_of(text: str) -> tuple[MetricPriceInput, list[Discount]]:
    """The price that a line of the table names, and its discounts."""
    model, *words = text.split()
    named = [(word.partition("=")[0], word.partition("=")[2]) for word in words if "=" in word]
    plain = [word for word in words if "=" not in word]
    terms = ("included", "minimum", "maximum", "percent")
    parameters: dict[str, object] = {}
    prices = [(name, value) for name, value in named if name not in terms]
    if model == "PER_UNIT":
        parameters["unitPrice"] = plain[0]
    elif model == "PACKAGE":
        parameters["packageSize"], parameters["packagePrice"] = plain[0].split("@")
    elif model == "PERCENTAGE":
        parameters |= {"rate": plain[0], **dict(prices)}
    elif model == "DIMENSIONAL":
        parameters["unitPrice"] = dict(prices)[""]
        parameters["prices"] = [
            {"match": {"model": name}, "unitPrice": price} for name, price in prices if name
        ]
    else:
        tiers = [(tier.split("@")[0], *tier.split("@")[1].split("+")) for tier in plain]
        parameters["tiers"] = [
            {"upTo": up_to or None, "unitPrice": "" if model == "STAIRSTEP" else unit}
            | {"flatPrice": flat}
            for up_to, unit, flat in tiers
        ]
    found = dict(named)
    price = MetricPriceInput(
        "M",
        model,
        found.get("included", ""),
        parameters,
        found.get("minimum", ""),
        found.get("maximum", ""),
    )
    return price, [Discount(percent=Decimal(v)) for name, v in named if name == "percent"]


@pytest.mark.parametrize(
    ("price", "used", "currency", "amount", "arithmetic"),
    quantities.CASES,
    ids=lambda value: str(value)[:30],
)
def test_a_quantity(price: str, used: str, currency: str, amount: str, arithmetic: str) -> None:
    check_arithmetic(arithmetic, amount)
    given, discounts = price_of(price)
    (made,) = plan(currency, metrics=[given]).metrics
    if isinstance(made.model, Dimensional):
        figures = [Decimal(0)] * (len(made.model.prices) + 1)
        for word in used.split():
            name, _, figure = word.partition("=")
            figures[made.model.part_of({"model": name})] += Decimal(figure)
        usage = MetricUsage(sum(figures, Decimal(0)), parts=made.model.parts(figures))
    else:
        events = tuple(map(Decimal, used.split()))
        usage = MetricUsage(sum(events, Decimal(0)), event_count=len(events), events=events)
    line = usage_line(made, usage, currency, JANUARY, discounts=discounts)
    assert str(line.amount) == amount


def subscription(
    content: PlanContent, start: datetime, zone: str, anchor: str, seats: int = 1
) -> Subscription:
    stored = Plan("plan_1", 1, content, start)
    made = Subscription(
        tenant=TenantKey("org_" + "0" * 32, "test"),
        id="sub_1",
        customer_id="user_123",
        plan_id="plan_1",
        plan_version=1,
        status=SubscriptionStatus.ACTIVE,
        billing_anchor=BillingAnchor(anchor),
        billing_period=BillingPeriod(content.billing_period),
        time_zone=zone,
        start_time=start,
        period=None,
        cancel_time=None,
        revision=1,
        create_time=start,
        phases=first_phases(stored, start, None, seats, start),
    )
    return replace(made, period=made.part_from(start))


@pytest.mark.parametrize(
    ("length", "anchor", "zone", "start", "price", "seats", "currency", "end", "amount", "steps"),
    times.CASES,
    ids=[f"{case[0]} {case[2]} {case[3]}" for case in times.CASES],
)
def test_a_base_price(
    length: str,
    anchor: str,
    zone: str,
    start: str,
    price: str,
    seats: int,
    currency: str,
    end: str,
    amount: str,
    steps: str,
) -> None:
    check_arithmetic(steps, amount)
    content = plan(currency, base_price=price, billing_period=length)
    begin = datetime.fromisoformat(start).replace(tzinfo=UTC)
    made = subscription(content, begin, zone, anchor, seats)
    first = Period(begin, datetime.fromisoformat(end).replace(tzinfo=UTC))
    assert made.period == first
    (line,) = OpenPeriod(made, Plan("plan_1", 1, content, begin), first).draft(()).lines
    assert str(line.amount) == amount


@pytest.mark.parametrize(
    ("timing", "zone", "price", "seats", "currency", "when", "other", "then", "amounts", "steps",
     "total"),
    times.CHANGES,
    ids=[f"{case[4]} {case[5]} {case[6]} {case[7]}" for case in times.CHANGES],
)  # fmt: skip
def test_a_change_at_a_second(
    timing: str,
    zone: str,
    price: str,
    seats: int,
    currency: str,
    when: str,
    other: str,
    then: int,
    amounts: list[str],
    steps: str,
    total: str,
) -> None:
    check_arithmetic(steps, total)
    begin, now = JANUARY.start, datetime.fromisoformat(when).replace(tzinfo=UTC)
    contents = [
        plan(currency, base_price=each, base_price_timing=timing) for each in (price, other)
    ]
    plans = [Plan(f"plan_{n}", 1, each, begin) for n, each in enumerate(contents, 1)]
    plans[1] = plans[0] if price == other else plans[1]
    made = subscription(contents[0], begin, zone, "CALENDAR", seats)
    made = changed(made, begin_at(made, Timing.NOW, now), plans[1], then, now)
    found = []
    part = made.part_from(begin)
    while part is not None and part.start < JANUARY.end:
        on = next(each for each in plans if each.id == made.phase_at(part.start).plan_id)
        asked = replace(made, period=part, exact_period_start=None)
        due = OpenPeriod(asked, on, part, time_plans=tuple(plans))
        found += [str(line.amount) for line in due.draft(()).lines]
        part = made.part_from(part.end)
    assert found == amounts


@pytest.mark.parametrize(
    ("changes", "used", "rates", "currency", "lines", "total", "arithmetic"),
    sums.CASES,
    ids=[f"{number} {case[0]} {case[2]}"[:60] for number, case in enumerate(sums.CASES)],
)
def test_a_month(
    changes: dict[str, object],
    used: str,
    rates: list[str],
    currency: str,
    lines: list[str],
    total: str,
    arithmetic: str,
) -> None:
    check_arithmetic(arithmetic, total)
    discounts = [
        DiscountInput(percent=text[:-1]) if text.endswith("%") else DiscountInput(amount=text)
        for text in changes.get("discounts", ())  # type: ignore[attr-defined]
    ]
    unit = MetricPriceInput("M", "PER_UNIT", "", {"unitPrice": "1"})
    content = plan(
        currency, **{"base_price": "100", "metrics": [unit], **changes, "discounts": discounts}
    )
    made = subscription(content, JANUARY.start, "UTC", "CALENDAR")
    taxes = tuple(
        TaxRate(f"tax_{text}", "VAT", Decimal(text.split()[0]), "incl" in text, JANUARY.start)
        for text in rates
    )
    due = OpenPeriod(made, Plan("plan_1", 1, content, JANUARY.start), JANUARY, tax_rates=taxes)
    draft = due.draft([{"M": MetricUsage(Decimal(used))}])
    assert [str(line.amount) for line in draft.lines if line.kind in LINES] == lines
    assert str(draft.amount) == total


def test_the_tables_are_as_long_as_was_promised() -> None:
    assert len(quantities.CASES) + len(times.CASES) + len(times.CHANGES) + len(sums.CASES) >= 150
