"""What holds for any price and any usage; beside it stands a naive model in fractions."""

from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, Rounded, localcontext
from fractions import Fraction
from math import ceil, floor

from hypothesis import given
from hypothesis import strategies as st

from services.invoicer.exact import add, fraction, less_percent, percent, subtract, total
from services.invoicer.periods import Period
from services.invoicer.pricing.charge import Limits, charge
from services.invoicer.pricing.dimensional import Dimensional, DimensionPrice
from services.invoicer.pricing.graduated import Graduated
from services.invoicer.pricing.model import PricingModel
from services.invoicer.pricing.package import Package
from services.invoicer.pricing.per_unit import PerUnit
from services.invoicer.pricing.percentage import Percentage
from services.invoicer.pricing.stairstep import Stairstep
from services.invoicer.pricing.tiers import Tier
from services.invoicer.pricing.usage import MetricUsage
from services.invoicer.pricing.volume import Volume
from services.invoicer.proration import prorate
from services.kit.money import minor_digits, round_money
from tests.unit.invoicer.calculator import follow

ZERO = Decimal(0)
CURRENCIES = st.sampled_from(["USD", "JPY", "KWD"])
QUANTITIES = st.decimals(min_value=0, max_value=10**7, places=3)
SMALL = st.decimals(min_value=0, max_value=30, places=1)
PRICES = st.decimals(min_value=0, max_value=100, places=6)
AMOUNTS = st.decimals(min_value=0, max_value=1000, places=2)


@st.composite
def tiers(draw: st.DrawFn, *, flat: bool = True, rising: bool = False) -> tuple[Tier, ...]:
    """One to five tiers; with small bounds, so that quantities often lie on them."""
    bounds = sorted(draw(st.sets(SMALL.filter(bool), max_size=4)))
    count = len(bounds) + 1
    flats = draw(st.lists(PRICES, min_size=count, max_size=count)) if flat else [ZERO] * count
    flats = sorted(flats) if rising else flats
    prices = draw(st.lists(PRICES, min_size=count, max_size=count))
    return tuple(map(Tier, [*bounds, None], prices, flats))


@st.composite
def percentages(draw: st.DrawFn) -> Percentage:
    lowest, highest = sorted([draw(AMOUNTS), draw(AMOUNTS)])
    return Percentage(
        rate_percent=draw(PRICES),
        fixed_per_event=draw(AMOUNTS),
        free_events=draw(st.integers(0, 3)),
        free_amount=draw(AMOUNTS),
        min_per_event=draw(st.sampled_from([None, lowest])),
        max_per_event=draw(st.sampled_from([None, highest])),
    )


MODELS = st.one_of(
    st.builds(PerUnit, PRICES),
    st.builds(Graduated, tiers()),
    st.builds(Volume, tiers()),
    st.builds(Stairstep, tiers()),
    st.builds(Package, SMALL.filter(bool), PRICES),
)
NEVER_CHEAPER = st.one_of(
    st.builds(PerUnit, PRICES),
    st.builds(Graduated, tiers()),
    st.builds(Stairstep, tiers(rising=True)),
    st.builds(Package, SMALL.filter(bool), PRICES),
)
EVENTS = st.lists(AMOUNTS, max_size=8)
ANY_QUANTITY = st.one_of(SMALL, QUANTITIES)


def by_events(amounts: list[Decimal]) -> MetricUsage:
    return MetricUsage(total(amounts), event_count=len(amounts), events=tuple(amounts))


def naive_graduated(tiers: tuple[Tier, ...], quantity: Fraction) -> Fraction:
    """Walks up from the bottom, taking from the quantity what fits into each tier."""
    cost, bottom, left, first = Fraction(0), Fraction(0), quantity, True
    for tier in tiers:
        if left > 0 or first:
            room = left if tier.up_to is None else Fraction(tier.up_to) - bottom
            taken = min(left, room)
            cost += taken * Fraction(tier.unit_price) + Fraction(tier.flat_price)
            left -= taken
            bottom += room
            first = False
    return cost


def naive_reached(tiers: tuple[Tier, ...], quantity: Fraction) -> Tier:
    return next(tier for tier in tiers if tier.up_to is None or quantity <= Fraction(tier.up_to))


def naive_percentage(model: Percentage, amounts: list[Decimal]) -> Fraction:
    """Event by event."""
    cost, free = Fraction(0), Fraction(model.free_amount)
    for amount in map(Fraction, amounts[model.free_events :]):
        charged = max(amount - free, Fraction(0))
        free -= amount - charged
        price = charged * Fraction(model.rate_percent) / 100 + Fraction(model.fixed_per_event)
        if model.min_per_event is not None and charged > 0:
            price = max(price, Fraction(model.min_per_event))
        if model.max_per_event is not None:
            price = min(price, Fraction(model.max_per_event))
        cost += price
    return cost


@given(tiers(), ANY_QUANTITY)
def test_graduated_is_the_sum_of_its_tiers(tiers: tuple[Tier, ...], quantity: Decimal) -> None:
    rated = Graduated(tiers).rate(MetricUsage(quantity))
    assert rated.amount == naive_graduated(tiers, Fraction(quantity))


@given(tiers(), ANY_QUANTITY)
def test_volume_and_stairstep_have_the_price_of_the_tier_reached(
    tiers: tuple[Tier, ...], quantity: Decimal
) -> None:
    tier, usage = naive_reached(tiers, Fraction(quantity)), MetricUsage(quantity)
    linear = Fraction(quantity) * Fraction(tier.unit_price) + Fraction(tier.flat_price)
    assert Volume(tiers).rate(usage).amount == linear
    assert Stairstep(tiers).rate(usage).amount == tier.flat_price


@given(SMALL.filter(bool), PRICES, ANY_QUANTITY)
def test_packages_are_counted_up(size: Decimal, price: Decimal, quantity: Decimal) -> None:
    packages = ceil(Fraction(quantity) / Fraction(size))
    assert Package(size, price).rate(MetricUsage(quantity)).amount == packages * Fraction(price)


@given(percentages(), EVENTS)
def test_a_percentage_is_the_sum_of_its_events(model: Percentage, amounts: list[Decimal]) -> None:
    assert model.rate(by_events(amounts)).amount == naive_percentage(model, amounts)


@given(tiers(flat=False), st.data())
def test_graduated_has_no_jumps_without_flat_prices(
    tiers: tuple[Tier, ...], data: st.DataObject
) -> None:
    bounds = [tier.up_to for tier in tiers if tier.up_to is not None]
    start = data.draw(st.sampled_from([*bounds, Decimal(1)]))
    step = Decimal("0.000001")
    before = Graduated(tiers).rate(MetricUsage(start)).amount
    after = Graduated(tiers).rate(MetricUsage(add(start, step))).amount
    assert before <= after <= before + step * max(tier.unit_price for tier in tiers)


@given(NEVER_CHEAPER, ANY_QUANTITY, ANY_QUANTITY, SMALL)
def test_more_usage_never_costs_less(
    model: PricingModel, one: Decimal, other: Decimal, included: Decimal
) -> None:
    costs = [
        charge(model, included, MetricUsage(quantity), "USD").amount
        for quantity in sorted([one, other])
    ]
    assert costs == sorted(costs)


@given(percentages(), EVENTS, AMOUNTS)
def test_one_more_event_never_costs_less(
    model: Percentage, amounts: list[Decimal], more: Decimal
) -> None:
    fewer = charge(model, ZERO, by_events(amounts), "USD").amount
    assert fewer <= charge(model, ZERO, by_events([*amounts, more]), "USD").amount


@given(st.lists(ANY_QUANTITY, min_size=4, max_size=4), st.lists(PRICES, min_size=4, max_size=4))
def test_dimensions_are_priced_each_by_itself(
    quantities: list[Decimal], prices: list[Decimal]
) -> None:
    named = [DimensionPrice((("model", str(n)),), price) for n, price in enumerate(prices[:3])]
    model = Dimensional(tuple(named), prices[3])
    usage = MetricUsage(total(quantities), parts=model.parts(quantities))
    pairs = zip(quantities, prices, strict=True)
    alone = [PerUnit(price).rate(MetricUsage(quantity)).amount for quantity, price in pairs]
    assert model.rate(usage).amount == total(alone)


@given(PRICES, st.lists(ANY_QUANTITY, min_size=1, max_size=5))
def test_a_price_per_unit_is_the_same_for_parts_and_the_whole(
    price: Decimal, quantities: list[Decimal]
) -> None:
    model = PerUnit(price)
    parts = [model.rate(MetricUsage(quantity)).amount for quantity in quantities]
    assert total(parts) == model.rate(MetricUsage(total(quantities))).amount


@given(
    MODELS,
    SMALL,
    st.lists(ANY_QUANTITY, min_size=1, max_size=6),
    st.lists(st.one_of(st.none(), AMOUNTS), min_size=2, max_size=2),
    CURRENCIES,
)
def test_bills_inside_of_a_period_sum_to_the_bill_of_the_whole(
    model: PricingModel,
    included: Decimal,
    steps: list[Decimal],
    bounds: list[Decimal | None],
    currency: str,
) -> None:
    """Each is the charge so far less what was billed; the minimum comes with the last."""
    lowest, highest = bounds
    if lowest is not None and highest is not None:
        lowest, highest = sorted([lowest, highest])
    limits = Limits(lowest, highest)
    billed = quantity = ZERO
    for number, step in enumerate(steps, start=1):
        quantity = add(quantity, step)
        over = number == len(steps)
        usage = MetricUsage(quantity)
        now = charge(model, included, usage, currency, limits, period_over=over)
        bill = subtract(now.amount, billed)
        billed = add(billed, bill)
    assert billed == charge(model, included, MetricUsage(quantity), currency, limits).amount


@given(
    st.one_of(
        st.tuples(MODELS, st.builds(MetricUsage, ANY_QUANTITY)),
        st.tuples(percentages(), st.builds(by_events, EVENTS)),
    ),
    SMALL,
    CURRENCIES,
)
def test_the_steps_lead_to_the_amount_with_a_pocket_calculator(
    priced: tuple[PricingModel, MetricUsage], included: Decimal, currency: str
) -> None:
    model, usage = priced
    result = charge(model, included, usage, currency)
    assert follow(result.steps) == result.amount


RATES = st.decimals(min_value="0.000001", max_value=100, places=6)
# Any operation in the thread's own context, in place of the exact one, raises or is far off.
NO_DIGITS = Context(prec=1, traps=[Inexact, Rounded])
MAY = datetime(2026, 5, 1, tzinfo=UTC)


def in_minor_units(amount: Fraction, currency: str) -> Fraction:
    unit = 10 ** minor_digits(currency)
    return Fraction(floor(amount * unit + Fraction(1, 2)), unit)


@given(MODELS, ANY_QUANTITY, SMALL, st.lists(RATES, max_size=20), CURRENCIES)
def test_a_charge_less_many_discounts_is_rounded_once(
    model: PricingModel, quantity: Decimal, included: Decimal, rates: list[Decimal], currency: str
) -> None:
    """Twenty rates of eight digits make more than 60: none is lost before the rounding."""
    rest = max(subtract(quantity, included), ZERO)
    cost = Fraction(model.rate(MetricUsage(rest)).amount)
    for rate in rates:
        cost *= 1 - Fraction(rate) / 100
    with localcontext(NO_DIGITS):
        made = charge(model, included, MetricUsage(quantity), currency, percents=rates)
    assert Fraction(made.amount) == in_minor_units(cost, currency)


@given(PRICES, st.lists(RATES, max_size=3), st.integers(0, 10**7), st.integers(1, 10**7))
def test_shares_and_taxes_are_those_of_fractions(
    price: Decimal, rates: list[Decimal], part_s: int, more_s: int
) -> None:
    cost = Fraction(price)
    end = MAY + timedelta(seconds=part_s + more_s)
    whole, part = Period(MAY, end), Period(MAY + timedelta(seconds=part_s), end)
    with localcontext(NO_DIGITS):
        for rate in rates:
            price = less_percent(price, rate)
            cost *= 1 - Fraction(rate) / 100
        share = prorate(price, "price", "USD", part, whole).amount
        inside = round_money(fraction(share, Decimal(19), Decimal(119)), "USD")
        added = round_money(percent(share, Decimal("8.875")), "USD")
    assert Fraction(share) == in_minor_units(cost * more_s / (part_s + more_s), "USD")
    assert Fraction(inside) == in_minor_units(Fraction(share) * 19 / 119, "USD")
    assert Fraction(added) == in_minor_units(Fraction(share) * Fraction("8.875") / 100, "USD")
