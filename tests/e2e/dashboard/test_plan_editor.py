"""The plan editor has every pricing model, tells what it costs, and loses nothing on the way."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from cli.connection import Connection
from tests.e2e.api import Api
from tests.e2e.dashboard.conftest import WAIT_MS, Visitor

expect.set_options(timeout=WAIT_MS)
# By model: what is filled in, and what 1,000 units come to.
PRICES = {
    "PER_UNIT": ({"unitPrice": "0.01", "includedUnits": "100"}, "9"),
    "GRADUATED": (
        {"tiers[0].upTo": "500", "tiers[0].unitPrice": "0.02", "tiers[1].unitPrice": "0.01"},
        "15",
    ),
    "VOLUME": (
        {"tiers[0].upTo": "500", "tiers[0].unitPrice": "0.02", "tiers[1].unitPrice": "0.01"},
        "10",
    ),
    "STAIRSTEP": (
        {"tiers[0].upTo": "500", "tiers[0].flatPrice": "5", "tiers[1].flatPrice": "8"},
        "8",
    ),
    "PACKAGE": ({"packageSize": "300", "packagePrice": "2"}, "8"),
    # Of 5 events 2 are free; 2 % of 200 and 0.1 is more than 3.
    "PERCENTAGE": (
        {
            "rate": "2",
            "fixedPerEvent": "0.1",
            "freeEvents": "2",
            "minPerEvent": "1",
            "maxPerEvent": "3",
            "_eventAmount": "200",
        },
        "9",
    ),
    # 1,000 of each.
    "DIMENSIONAL": (
        {"prices[0].match": "model=gpt-4", "prices[0].unitPrice": "0.05", "unitPrice": "0.01"},
        "60",
    ),
}


@pytest.fixture(scope="module", autouse=True)
def metrics(stack: Connection) -> None:
    api = Api(stack.http, stack.api_key)
    for model in PRICES:
        api.post("/api/metrics", {"key": f"EDITED_{model}", "dimensions": ["model"]})


def test_a_plan_of_every_model_is_previewed_made_and_edited(
    owner: Visitor, stack: Connection
) -> None:
    page = owner.open("/plans/new")
    total = page.locator("[data-preview-total]")
    page.get_by_label("Name").fill("Plan of everything")
    page.get_by_label("Base price", exact=True).fill("100")
    for row, model in enumerate(PRICES):
        if row:
            page.get_by_role("button", name="Metric", exact=True).click()
        fill_price(page, row, model)
    preview = page.locator("[data-preview]")
    expect(total).to_have_text("$219.00")  # 100 + 9 + 15 + 10 + 8 + 8 + 9 + 60
    for model, (_fields, amount) in PRICES.items():
        line = preview.get_by_role("row", name=f"EDITED_{model}")
        expect(line).to_contain_text(f"${amount}.00")
        expect(preview.get_by_role("img", name=f"Price of EDITED_{model} by")).to_be_visible()
    expect(preview.locator(".legend")).to_contain_text("model=gpt-4")
    expect(preview.locator(".legend")).to_contain_text("any other")
    # At the end of a tier the curve jumps from one unit to the next.
    for jump in ("500: $10.00", "501: $5.01", "500: $5.00", "501: $8.00"):
        expect(preview.locator(f"[data-tip='{jump}']")).not_to_have_count(0)

    page.locator("[name='discounts[0].name']").fill("Launch")
    page.locator("[name='discounts[0].percent']").fill("10")
    page.locator("[name='discounts[0].periods']").fill("3")
    expect(total).to_have_text("$197.10")
    page.get_by_text("Setup fee, minimum, maximum").click()
    page.get_by_label("A period at most").fill("150")
    expect(total).to_have_text("$150.00")
    owner.keep("plan-editor-models")
    with owner.on_a_telephone():
        owner.picture("plan-editor-models-380")
        assert owner.needs_no_sideways_scrolling()
    page.get_by_role("button", name="Create plan").click()
    expect(page.get_by_role("heading", name="Plan of everything")).to_be_visible()
    owner.keep("plan-models")

    page.get_by_role("link", name="Edit").click()
    for row, (fields, _amount) in enumerate(PRICES.values()):
        for name, value in fields.items():
            shown = page.locator(f"[name='metrics[{row}].{name}']").input_value()
            assert shown == value or name == "_eventAmount", (row, name)
    page.get_by_role("button", name="Save as version 2").click()
    expect(page.get_by_text("version 2")).to_be_visible()
    api = Api(stack.http, stack.api_key)
    path = f"/api/plans/{page.url.partition('/plans/')[2].partition('?')[0]}"
    assert content(api.get(path, version="1")) == content(api.get(path, version="2"))
    assert content(api.get(path))["discounts"][0]["percent"] == "10"


def fill_price(page: Page, row: int, model: str) -> None:
    """Fill in the row of a metric's price, with a preview of 1,000 units."""
    start = f"metrics[{row}]"
    page.locator(f"[name='{start}.metric']").select_option(f"EDITED_{model}")
    page.locator(f"[name='{start}.model']").select_option(model)
    page.locator(f"[name='{start}._quantity']").fill("1,000")
    fields, _amount = PRICES[model]
    for name, value in fields.items():
        page.locator(f"[name='{start}.{name}']").fill(value)


def content(plan: dict[str, Any]) -> dict[str, Any]:
    """A plan without what tells its versions apart."""
    return {name: plan[name] for name in plan if name not in ("version", "createdAt")}


def test_a_very_low_price_is_shown_over_as_many_units_as_it_takes(owner: Visitor) -> None:
    page = owner.open("/plans/new")
    fill_price(page, 0, "PER_UNIT")
    page.locator("[name='metrics[0].includedUnits']").fill("")
    page.get_by_label("Price of a unit").fill("0.00002")
    page.get_by_label("Name").fill("Low")
    expect(page.locator("[data-preview] [data-tip='500,000: $10.00']")).to_have_count(1)


def test_a_price_without_its_metric_is_not_lost_silently(owner: Visitor) -> None:
    page = owner.open("/plans/new")
    page.get_by_label("Name").fill("Half a plan")
    page.get_by_label("Price of a unit").fill("0.01")
    expect(page.locator("[data-preview]")).to_contain_text("Metric 1, metric is required")
    page.get_by_role("button", name="Create plan").click()
    expect(page.get_by_role("alert")).to_be_visible()
    metric = page.get_by_label("Metric", exact=True)
    expect(metric).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Price of a unit")).to_have_value("0.01")


def test_a_preview_of_too_many_events_says_so(owner: Visitor) -> None:
    page = owner.open("/plans/new")
    fill_price(page, 0, "PERCENTAGE")
    page.get_by_label("Preview with").fill("200,001")
    expect(page.locator("[data-preview]")).to_contain_text("must be at most 200,000: 1,000 events")
