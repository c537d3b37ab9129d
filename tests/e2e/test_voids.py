"""An event is voided, from the HTTP route to the invoice."""

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.connection import Connection
from cli.stack import running_stack
from tests.e2e.api import Api, connection_of, new_key, wait_for
from tests.e2e.homes import copy_home

# Voids are prompt; a busy machine is not.
WAIT_S = 30.0


@pytest.fixture
def api(stack: Connection) -> Api:
    """The stack's own organization."""
    return Api(stack.http, stack.api_key)


def new_metric(api: Api, aggregation: str = "SUM") -> str:
    """The key of a metric that nothing was sent of."""
    key = new_key(aggregation)
    api.post("/api/metrics", {"key": key, "aggregation": aggregation})
    return key


def tracked(api: Api, metric: str, amount: str, **fields: Any) -> str:
    """The id of a new event."""
    answer = api.ok(api.track(new_key(), metric=metric, amount=amount, **fields))
    return str(answer["eventId"])


def void(api: Api, event_id: str, reason: str = "sent twice") -> dict[str, Any]:
    """The event after voiding it."""
    return api.post(f"/api/events/{event_id}/void", {"reason": reason})


def test_a_correction_is_a_void_and_an_event_with_another_key(api: Api) -> None:
    metric = new_metric(api)
    key = new_key()
    wrong = api.ok(api.track(key, metric=metric, amount="500"))["eventId"]
    tracked(api, metric, "1")
    # The void's token speaks of the void alone, not of what was tracked before it.
    api.await_usage("501", WAIT_S, metric=metric)
    answer = api.http.post(f"/api/events/{wrong}/void", json={"reason": "a typo"})
    event = api.ok(answer)
    assert (event["id"], event["amount"], event["voidReason"]) == (wrong, "500", "a typo")
    # The token of the void: the answer no longer counts the event.
    headers = {"usage-token": answer.headers["usage-token"]}
    told = api.http.get("/api/usage", params={"metric": metric}, headers=headers)
    assert api.ok(told)["data"][0]["value"] == "1"
    # The key stays used.
    again = api.track(key, metric=metric, amount="500")
    assert again.headers["idempotent-replayed"] == "true"
    tracked(api, metric, "50")
    api.await_usage("51", WAIT_S, metric=metric)
    assert void(api, wrong, "again") == event
    assert api.get(f"/api/events/{wrong}") == event
    listed = api.get("/api/events", metric=metric)["data"]
    assert sorted(one["voidedAt"] is None for one in listed) == [False, True, True]


@pytest.mark.parametrize(
    ("aggregation", "figures"),
    # Of 3, 9 and 6, voided in the order 9, 3, 6.
    [
        ("MAX", ["6", "6", "0"]),
        ("MIN", ["3", "6", "0"]),
        ("LATEST", ["6", "6", "0"]),
        ("AVG", ["4.5", "6", "0"]),
        ("COUNT", ["2", "1", "0"]),
    ],
)
def test_a_void_leaves_figures_of_every_kind(
    api: Api, aggregation: str, figures: list[str]
) -> None:
    metric = new_metric(api, aggregation)
    at = datetime.now(UTC).replace(microsecond=0)
    three, nine, six = (
        tracked(api, metric, amount, timestamp=(at + timedelta(microseconds=n)).isoformat())
        for n, amount in enumerate(("3", "9", "6"))
    )
    for event_id, figure in zip((nine, three, six), figures, strict=True):
        void(api, event_id)
        api.await_usage(figure, WAIT_S, metric=metric)


def test_a_void_overtakes_no_event_while_aggregator_is_held_up(api: Api, stack_home: Path) -> None:
    metric = new_metric(api)
    aggregator = connection_of(stack_home).pids["aggregator"]
    os.kill(aggregator, signal.SIGSTOP)
    try:
        first = tracked(api, metric, "7")
        tracked(api, metric, "1")
        assert void(api, first)["voidedAt"] is not None
    finally:
        os.kill(aggregator, signal.SIGCONT)
    api.await_usage("1", 60, metric=metric)


def next_month(instant: datetime) -> datetime:
    first = instant.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


def clock_at(instant: datetime) -> dict[str, str]:
    """The environment of a stack whose clock shows `instant` now."""
    offset_s = int((instant - datetime.now(UTC)).total_seconds())
    return {"USAGEFLOW_CLOCK_OFFSET_S": str(offset_s), "USAGEFLOW_INVOICE_GRACE_S": "0"}


def test_what_is_voided_after_its_invoice_is_a_credit_on_the_next(
    tmp_path: Path, prepared_home: Path
) -> None:
    first_end = next_month(datetime.now(UTC))
    start = (first_end - timedelta(days=1)).replace(day=1)
    month = {"from": start.isoformat(), "to": first_end.isoformat()}
    happened = (first_end - timedelta(days=2)).isoformat()
    home = copy_home(prepared_home, tmp_path / "stack")
    with running_stack(home, environ=clock_at(first_end + timedelta(minutes=10))) as connection:
        api = Api(connection.http, connection.api_key)
        tracked(api, "API_CALL", "11500", timestamp=happened)
        wrong = [tracked(api, "API_CALL", "250", timestamp=happened) for _ in range(2)]
        api.await_usage("12000", WAIT_S, **month)
        price = {
            "metric": "API_CALL",
            "model": "PER_UNIT",
            "includedUnits": "10000",
            "unitPrice": "0.01",
        }
        plan = {"name": "Pro", "currency": "USD", "basePrice": "100.00", "metrics": [price]}
        plan_id = api.post("/api/plans", plan)["id"]
        body = {"customerId": "user_123", "planId": plan_id, "startsAt": start.isoformat()}
        api.post("/api/subscriptions", body)
        wait_for("the invoice", lambda: api.get("/api/invoices")["data"], WAIT_S)
        assert [one["amount"] for one in api.get("/api/invoices")["data"]] == ["120.00"]
        for event_id in wrong:
            void(api, event_id)
        api.await_usage("11500", WAIT_S, **month)
    second_end = next_month(first_end)
    with running_stack(home, environ=clock_at(second_end + timedelta(minutes=10))) as connection:
        api = Api(connection.http, connection.api_key)
        wait_for("the next", lambda: len(api.get("/api/invoices")["data"]) == 2, 60)
        newest, oldest = api.get("/api/invoices")["data"]
        assert (oldest["amount"], newest["amount"]) == ("120.00", "95.00")
        credit = newest["lines"][-1]
        assert (credit["quantity"], credit["amount"]) == ("-500", "-5.00")
        assert f"{start:%Y-%m-%d} to {first_end:%Y-%m-%d}" in credit["description"]
        assert datetime.fromisoformat(credit["periodStart"]) == start
