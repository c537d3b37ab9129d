"""The plan editor's fields stand for the plan that they were made of."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from gateway.dashboard.forms import Form
from gateway.dashboard.pages.plans import filled, written
from gateway.shapes.plans import DimensionPrice, MetricPrice, NewPlan, Plan

# A field of a form has no blanks around it, and a value of a dimension is never shown empty.
VALUES = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1).filter(
    lambda value: value == value.strip() and not value.endswith("\\")
)


@given(st.dictionaries(st.sampled_from(["model", "region"]), VALUES, min_size=1))
def test_dimension_values_with_any_signs_are_what_they_were(match: dict[str, str]) -> None:
    price = MetricPrice(
        metric="A",
        model="DIMENSIONAL",
        included_units="0",
        unit_price="1",
        prices=[DimensionPrice(match=match, unit_price="2")],
    )
    plan = Plan(
        id="plan_1",
        version=1,
        name="P",
        currency="USD",
        base_price="0",
        base_price_timing="IN_ARREARS",
        setup_fee="0",
        billing_period="MONTHLY",
        metrics=[price],
        discounts=[],
        minimum=None,
        maximum=None,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    [read] = Form(written(filled(plan))).read(NewPlan).metrics
    assert read.prices[0].match == match
