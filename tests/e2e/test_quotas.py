"""Quotas through the whole stack: HTTP, the fold, the watermark, and the webhook's delivery."""

import csv
import io
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cli.connection import Connection
from tests.e2e.api import Api, connection_of, new_key, wait_for

METRIC = "QUOTA_TOKEN"
CUSTOMER = "limited"
CALLERS = 16


def state(api: Api, customer_id: str) -> tuple[str, str, str]:
    """(used, reserved, remaining) of the tightest quota."""
    check = api.get("/api/quotas/check", metric=METRIC, customerId=customer_id)
    return check["used"], check["reserved"], check["remaining"]


def reached(api: Api, endpoint: str) -> list[tuple[str, str]]:
    """The types and ids of the events that were sent to the endpoint."""
    deliveries = api.get(f"/api/webhooks/{endpoint}/deliveries", limit="100")["data"]
    return [(delivery["type"], delivery["eventId"]) for delivery in deliveries]


def await_end(api: Api, reservation: str, how: str, body: object) -> None:
    """Commit or release; again while aggregator is starting."""
    path = f"/api/quotas/reservations/{reservation}/{how}"
    wait_for(how, lambda: api.http.post(path, json=body).is_success, 30)


def test_usage_is_limited_told_of_and_counted_once(stack: Connection, stack_home: Path) -> None:
    api = Api(stack.http, stack.api_key)
    api.post("/api/metrics", {"key": METRIC})
    hook = {"url": "http://127.0.0.1:9/", "events": ["usage.threshold_reached"]}
    endpoint = api.post("/api/webhooks", hook)["id"]
    api.post("/api/quotas", {"metric": METRIC, "limit": 100, "period": "MONTH"})

    for _ in range(3):
        assert api.track(new_key(), metric=METRIC, amount=30, customerId=CUSTOMER).is_success
    wait_for("90 used", lambda: state(api, CUSTOMER) == ("90", "0", "10"), 30)

    units = {"metric": METRIC, "customerId": CUSTOMER, "amount": 1, "ttlSeconds": 600}

    def reserve(_number: int) -> Any:
        return api.http.post("/api/quotas/reservations", json=units)

    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(reserve, range(CALLERS)))
    granted = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    refused = [answer.json()["code"] for answer in answers if answer.status_code == 409]
    assert (len(granted), refused) == (10, ["quota_exceeded"] * (CALLERS - 10))

    # What was set aside survives the process.
    os.kill(connection_of(stack_home).pids["aggregator"], signal.SIGKILL)
    used, given_back = granted[:4], granted[4:]
    for _ in used:
        assert api.track(new_key(), metric=METRIC, amount=1, customerId=CUSTOMER).is_success

    for reservation in used:
        await_end(api, reservation, "commit", {})
    for reservation in given_back:
        await_end(api, reservation, "release", None)
    wait_for("all is counted", lambda: state(api, CUSTOMER) == ("94", "0", "6"), 30)

    wait_for("two thresholds", lambda: len(reached(api, endpoint)) >= 2, 30)
    told = reached(api, endpoint)
    assert [kind for kind, _ in told] == ["usage.threshold_reached"] * 2
    assert len({event_id for _, event_id in told}) == 2


def test_usage_is_exported_as_csv(stack: Connection) -> None:
    api = Api(stack.http, stack.api_key)
    api.track(new_key(), metric="CSV_TOKEN", amount="0.5", customerId="b")
    api.track(new_key(), metric="CSV_TOKEN", amount="2", customerId="a")
    api.await_usage("2.5", metric="CSV_TOKEN")
    parameters = {"metric": "CSV_TOKEN", "groupBy": "customerId"}
    answer = api.http.get("/api/usage.csv", params=parameters)
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [(row["customerId"], row["value"]) for row in rows] == [("a", "2"), ("b", "0.5")]
    top = api.get("/api/usage", metric="CSV_TOKEN", groupBy="customerId", top="1")["data"]
    assert [(row["group"]["customerId"], row["value"]) for row in top] == [("a", "2")]


def test_a_plans_limit_holds_for_its_subscribers(stack: Connection) -> None:
    """From the plan to the check; a quota of the customer's own goes before."""
    api = Api(stack.http, stack.api_key)
    metric, customer = new_key("LIMITED"), new_key("customer")
    api.post("/api/metrics", {"key": metric})
    price = {"metric": metric, "model": "PER_UNIT", "unitPrice": "1", "usageLimit": "3"}
    plan = api.post("/api/plans", {"name": "P", "currency": "USD", "metrics": [price]})
    assert plan["metrics"][0]["usageLimitEnforcement"] == "HARD"
    made = {"customerId": customer, "planId": plan["id"]}
    subscription = api.post("/api/subscriptions", made)["id"]

    def check() -> Any:
        return api.get("/api/quotas/check", metric=metric, customerId=customer, amount="4")

    wait_for("the limit", lambda: not check()["allowed"], 30)
    [state] = check()["quotas"]
    assert (state["period"], state["remaining"]) == ("BILLING_PERIOD", "3")
    usage = {"metric": metric, "customerId": customer, "window": "BILLING_PERIOD"}
    api.ok(api.track(new_key(), metric=metric, amount=2, customerId=customer))
    wait_for("the usage", lambda: check()["remaining"] == "1", 30)
    [row] = api.get("/api/usage", **usage)["data"]
    assert row["value"] == "2"
    [period] = api.get(f"/api/subscriptions/{subscription}/periods")["data"]
    assert row["start"] == period["start"]
    api.post("/api/quotas", {"metric": metric, "customerId": customer, "limit": "100"})
    assert check()["allowed"]
