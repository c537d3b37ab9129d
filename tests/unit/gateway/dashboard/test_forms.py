"""Forms become the Structs that the API reads, and problems keep their fields."""

from urllib.parse import urlencode

import pytest

from gateway.dashboard.forms import CHANGED, Form
from gateway.errors import HttpError
from gateway.shapes.plans import NewPlan
from gateway.shapes.webhooks import NewWebhook
from services.kit.errors import (
    FieldProblem,
    InvalidArgumentError,
    PermissionDeniedError,
    StaleError,
)


def form_of(*pairs: tuple[str, str]) -> Form:
    """A form that a browser has sent."""
    form = Form()
    form.fill(urlencode(pairs).encode())
    return form


def test_a_plan_with_tiers_is_read_and_empty_rows_are_left_out() -> None:
    plan = form_of(
        ("_csrf", "token"),
        ("name", " Pro "),
        ("currency", "USD"),
        ("minimum", ""),
        ("metrics[3].metric", "CALLS"),
        ("metrics[3].model", "GRADUATED"),
        ("metrics[3].tiers[0].upTo", ""),
        ("metrics[3].tiers[0].unitPrice", ""),
        ("metrics[3].tiers[1].upTo", "100"),
        ("metrics[3].tiers[1].unitPrice", "0.1"),
        ("metrics[3].tiers[4].unitPrice", "0.05"),
    ).read(NewPlan)
    assert (plan.name, plan.minimum) == ("Pro", None)
    [price] = plan.metrics
    assert [(tier.up_to, tier.unit_price) for tier in price.tiers] == [
        ("100", "0.1"),
        (None, "0.05"),
    ]


def test_a_problem_is_named_as_the_field_of_the_page_is() -> None:
    form = form_of(("currency", "USD"), ("metrics[7].metric", "A"), ("metrics[7].model", "NONE"))
    with pytest.raises(InvalidArgumentError) as caught:
        form.read(NewPlan)
    form.refuse(caught.value)
    assert "metrics[0].model" in form
    assert form.problems["metrics[0].model"].startswith("must be one of")
    assert "name: is required" in form.error


def test_lists_numbers_and_ticks_are_read_as_what_they_stand_for() -> None:
    webhook = form_of(("url", "https://a.example"), ("events", "a, b\nc"), ("rateLimit", "5")).read(
        NewWebhook
    )
    assert (webhook.events, webhook.rate_limit) == (["a", "b", "c"], 5)
    ticked = form_of(("url", "https://a.example"), ("events", "a"), ("events", "b"))
    assert ticked.read(NewWebhook).events == ["a", "b"]


def test_an_error_that_is_not_about_the_form_is_raised_again() -> None:
    error = PermissionDeniedError("No", reason="missing_role")
    with pytest.raises(PermissionDeniedError):
        Form().refuse(error)


def test_a_problem_without_a_field_on_the_page_is_told_all_the_same() -> None:
    form = Form()
    form.refuse(InvalidArgumentError([FieldProblem("elsewhere", "must be there")]))
    assert "elsewhere: must be there" in form.error


def test_a_form_that_came_too_late_shows_what_is_there_and_what_was_entered() -> None:
    late = form_of(
        ("_csrf", "token"),
        ("_etag", "old"),
        ("name", "Mine"),
        ("unit", "GB"),
        ("events", "a"),
        ("events", "b"),
        ("_patterns", "c.*"),
        ("metrics[0]._quantity", "5"),
        ("stripeApiKey", "sk_1"),
    )
    assert late.refuse(StaleError("changed")) == 412
    assert late.error == CHANGED
    now = Form([("name", "Theirs"), ("unit", "GB"), ("email", "a@b.example"), ("_etag", "new")])
    shown = late.outdated(now, secret=("stripeApiKey",))
    assert (shown["name"], shown.if_match, shown.error) == ("Theirs", ["new"], CHANGED)
    assert shown.entered == {"name": "Mine", "email": "", "events": "a, b", "_patterns": "c.*"}


def test_what_the_page_did_not_show_is_not_changed() -> None:
    form = form_of(("_etag", "one"), ("_etag", "two"))
    assert form.seen("two") == ["two"]
    assert form.seen("") == []
    for page in (form, Form()):
        with pytest.raises(StaleError):
            page.seen("three")


def test_rows_are_dropped_with_all_that_is_theirs() -> None:
    form = form_of(
        ("metrics[0].model", "PER_UNIT"),
        ("metrics[0]._quantity", "10"),
        ("metrics[1].metric", "A"),
        ("metrics[1].tiers[0].upTo", "5"),
        ("metrics[1]._quantity", "20"),
    )
    form.drop("metrics", {0})
    assert form.indexes("metrics") == [0]
    assert form["metrics[0]._quantity"] == "20"
    assert form["metrics[0].tiers[0].upTo"] == "5"


def test_one_of_several_forms_is_read_alone_and_its_problems_find_its_fields() -> None:
    form = form_of(("name", "Pro"), ("debit.currency", "USD"), ("debit.name", ""))
    with pytest.raises(InvalidArgumentError) as caught:
        form.part("debit").read(NewPlan)
    form.refuse(caught.value, "debit")
    assert set(form.problems) == {"debit.name"}


@pytest.mark.parametrize("name", ["a[", "a]b", "a..", "a[0].b[0", "-"])
def test_a_name_that_no_page_has_is_refused(name: str) -> None:
    with pytest.raises(HttpError) as caught:
        form_of((name, "x")).read(NewPlan)
    assert caught.value.status == 400
