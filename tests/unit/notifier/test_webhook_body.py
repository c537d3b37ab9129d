"""The bytes that are signed and sent."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from services.notifier.domain import webhook_body

WHEN = datetime(2026, 1, 31, 12, 30, 0, 250_000, tzinfo=UTC)


def test_the_body_has_type_timestamp_and_data_as_given() -> None:
    body = webhook_body("invoice.created", WHEN, '{"amount": "120.00", "name": "Zoë"}')
    assert json.loads(body) == {
        "type": "invoice.created",
        "timestamp": "2026-01-31T12:30:00.250000Z",
        "data": {"amount": "120.00", "name": "Zoë"},
    }


def test_numbers_in_data_keep_every_digit() -> None:
    body = webhook_body("invoice.created", WHEN, '{"n": 0.12345678901234567890123456789}')
    assert b"0.12345678901234567890123456789" in body


def test_another_zone_stays_the_same_instant() -> None:
    india = WHEN.astimezone(timezone(timedelta(hours=5, minutes=30)))
    timestamp = json.loads(webhook_body("invoice.paid", india, "{}"))["timestamp"]
    assert datetime.fromisoformat(timestamp) == WHEN


@pytest.mark.parametrize("data_json", ["", "[]", "null", '"x"', "{", '{"a": NaN}', "{} {}"])
def test_data_that_is_no_json_object_is_refused(data_json: str) -> None:
    with pytest.raises(ValueError):
        webhook_body("invoice.created", WHEN, data_json)
