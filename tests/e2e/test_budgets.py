"""Budgets through the whole stack: HTTP, a killed invoicer, and the webhook's deliveries."""

import os
import signal
from pathlib import Path

from cli.connection import Connection
from tests.e2e.api import Api, connection_of, new_key, wait_for

METRIC = "BUDGET_CALL"
CUSTOMERS = 5


def test_budgets_are_told_of_once_through_kill_9(stack: Connection, stack_home: Path) -> None:
    api = Api(stack.http, stack.api_key)
    api.post("/api/metrics", {"key": METRIC})
    hook = {"url": "http://127.0.0.1:9/", "events": ["usage.threshold_reached"]}
    endpoint = api.post("/api/webhooks", hook)["id"]
    price = {"metric": METRIC, "model": "PER_UNIT", "unitPrice": "0.10"}
    plan = {"name": "P", "currency": "USD", "basePrice": "5000.00", "metrics": [price]}
    plan_id = api.post("/api/plans", plan)["id"]
    budgets = []
    for number in range(CUSTOMERS):
        customer = {"customerId": f"budget_{number}"}
        made = api.post("/api/subscriptions", customer | {"planId": plan_id})
        api.track(new_key(), metric=METRIC, amount=1, **customer)
        budgets.append(f"/api/subscriptions/{made['id']}/budget")
    api.await_usage(str(CUSTOMERS), metric=METRIC)

    def put(path: str) -> bool:
        return api.http.put(path, json={"amount": "0.20", "percents": [50, 100]}).is_success

    for path in budgets[:-1]:
        assert put(path)
    os.kill(connection_of(stack_home).pids["invoicer"], signal.SIGKILL)
    wait_for("another invoicer", lambda: put(budgets[-1]), 30)

    def told() -> list[str]:
        listed = api.get(f"/api/webhooks/{endpoint}/deliveries", limit="100")["data"]
        return [each["eventId"] for each in listed]

    wait_for("all thresholds", lambda: len(told()) >= 2 * CUSTOMERS, 30)
    assert len(set(told())) == len(told()) == 2 * CUSTOMERS
    assert api.get("/api/audit", targetId=budgets[0].split("/")[3])["data"]
