"""The events that the form of an endpoint offers."""

from gateway.dashboard.pages.webhooks import EVENT_TYPES
from services.notifier import filters


def test_every_event_is_offered_but_tests_which_are_sent_by_hand() -> None:
    assert {*EVENT_TYPES, filters.TEST_EVENT_TYPE} == set(filters.EVENT_TYPES)
    assert len(EVENT_TYPES) == len(set(EVENT_TYPES))
