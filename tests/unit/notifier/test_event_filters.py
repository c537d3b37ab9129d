"""Which event types an endpoint's patterns take."""

import pytest

from services.notifier.filters import EVENT_TYPES, matches, takes, unknown_patterns


@pytest.mark.parametrize(
    ("pattern", "event_type"),
    [
        ("invoice.created", "invoice.created"),
        ("invoice.*", "invoice.created"),
        ("invoice.*", "invoice.payment.failed"),
        ("*.created", "subscription.created"),
        ("*", "usage.threshold_reached"),
        ("*.*", "invoice.paid"),
        ("invoice.*.failed", "invoice.payment.failed"),
    ],
)
def test_a_star_stands_for_a_segment_and_at_the_end_for_more(pattern: str, event_type: str) -> None:
    assert matches(pattern, event_type)


@pytest.mark.parametrize(
    ("pattern", "event_type"),
    [
        ("invoice.created", "invoice.paid"),
        ("invoice.*", "invoice"),
        ("invoice.*", "invoices.created"),
        ("inv*", "invoice.created"),
        ("*.created", "invoice.payment.created"),
        ("invoice", "invoice.created"),
        ("", "invoice.created"),
    ],
)
def test_a_star_stands_for_no_part_of_a_segment(pattern: str, event_type: str) -> None:
    assert not matches(pattern, event_type)


def test_no_patterns_take_all_and_several_take_what_any_takes() -> None:
    assert all(takes([], event_type) for event_type in EVENT_TYPES)
    assert takes(["invoice.*", "subscription.created"], "subscription.created")
    assert not takes(["invoice.*", "subscription.created"], "subscription.changed")


def test_patterns_that_take_nothing_known_are_told() -> None:
    patterns = ["invoice.crated", "invoice.*", "*", "customer.*", "inv*", *EVENT_TYPES]
    assert unknown_patterns(patterns) == ["customer.*", "inv*", "invoice.crated"]
