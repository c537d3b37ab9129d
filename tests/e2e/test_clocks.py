"""Test clocks on a running stack: a year of usage, invoices and webhooks within seconds."""

import os
import signal
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cli.connection import Connection
from tests.e2e.api import Api, connection_of, new_organization, wait_for
from tests.e2e.test_audit_invoices import audit, damage, expect

WAIT_S = 120.0
CUSTOMER, METRIC = "traveller", "TRAVELS"
WEEKLY = {
    "name": "Weekly",
    "currency": "USD",
    "basePrice": "1.00",
    "billingPeriod": "WEEKLY",
    "metrics": [
        {"metric": METRIC, "model": "PER_UNIT", "unitPrice": "0.10", "usageLimit": "1000"},
    ],
}


@pytest.fixture
def api(stack: Connection, stack_home: Path) -> Api:
    """An organization of its own."""
    return Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))


def ready(api: Api, clock_id: str) -> datetime:
    """The clock's time when it has arrived."""
    path = f"/api/test-clocks/{clock_id}"

    def is_ready() -> bool:
        # While invoicer is being replaced there is no answer.
        answer = api.http.get(path)
        assert answer.is_success or answer.status_code == 503, answer.text
        return answer.is_success and answer.json()["status"] == "READY"

    wait_for("READY", is_ready, WAIT_S)
    return datetime.fromisoformat(api.get(path)["now"])


def advance(api: Api, clock_id: str, to: datetime) -> None:
    answer = api.post(f"/api/test-clocks/{clock_id}/advance", {"to": to.isoformat()})
    assert (answer["status"], answer["advancingTo"] is None) == ("ADVANCING", False)


def track(api: Api, amount: int, **more: Any) -> datetime:
    """Send an event: when it happened, as it was stored."""
    sent = api.track(metric=METRIC, amount=amount, customerId=CUSTOMER, **more)
    event = api.get(f"/api/events/{sent.json()['eventId']}")
    return datetime.fromisoformat(event["timestamp"])


def limit_of(api: Api) -> tuple[str, datetime] | None:
    """What the plan leaves, and of the period from when on."""
    quotas = api.get("/api/quotas/check", metric=METRIC, customerId=CUSTOMER)["quotas"]
    if not quotas:
        return None
    return quotas[0]["remaining"], datetime.fromisoformat(quotas[0]["periodStart"])


def test_a_year_of_weeks_passes_though_invoicer_is_killed(
    api: Api, stack: Connection, stack_home: Path
) -> None:
    api.post("/api/metrics", {"key": METRIC})
    plan = api.post("/api/plans", WEEKLY)["id"]
    clock = api.post("/api/test-clocks", {"customerId": CUSTOMER})["id"]
    start = ready(api, clock)
    subscription = {"customerId": CUSTOMER, "planId": plan, "billingAnchor": "ANNIVERSARY"}
    begun = datetime.fromisoformat(api.post("/api/subscriptions", subscription)["startsAt"])
    assert track(api, 10) == start
    advance(api, clock, start + timedelta(days=20))
    third_week = ready(api, clock)
    assert third_week == start + timedelta(days=20)
    # Of the second week, and of the third, which is running.
    track(api, 20, timestamp=(start + timedelta(days=8)).isoformat())
    assert track(api, 30) == third_week
    assert track(api, 40, timestamp=(third_week + timedelta(minutes=5)).isoformat()) > third_week
    too_early = api.track(metric=METRIC, timestamp=(third_week + timedelta(minutes=6)).isoformat())
    assert too_early.status_code == 400, too_early.text
    # The plan limits the week that the clock shows, in which 70 units are counted.
    limit = ("930", begun + timedelta(days=14))
    wait_for("the limit", lambda: limit_of(api) == limit, WAIT_S)
    elsewhere = Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))
    refused = elsewhere.track(metric=METRIC, timestamp=third_week.isoformat())
    assert refused.status_code == 400, refused.text

    advance(api, clock, start + timedelta(days=364))
    os.kill(connection_of(stack_home).pids["invoicer"], signal.SIGKILL)
    ready(api, clock)
    invoices = api.get("/api/invoices", customerId=CUSTOMER, limit="100")["data"][::-1]
    assert [each["number"] for each in invoices] == [f"INV-{n:06d}" for n in range(1, 53)]
    # Late usage of the second week is on the third's invoice.
    assert [each["amount"] for each in invoices[:4]] == ["2.00", "1.00", "10.00", "1.00"]
    assert [each["createdAt"] for each in invoices] == [each["periodEnd"] for each in invoices]
    assert all(one["periodEnd"] == other["periodStart"] for one, other in pairwise(invoices))
    done = audit(api, stack_home, "--to", f"{start + timedelta(days=366):%Y-%m-%d}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "52 worked out" in done.stdout
    api.ok(api.http.delete(f"/api/test-clocks/{clock}"))
    # Those who take events know of its end as soon as they are told.
    early = {"metric": METRIC, "customerId": CUSTOMER, "timestamp": third_week.isoformat()}
    wait_for("its end", lambda: api.track(**early).status_code == 400, WAIT_S)


def test_time_is_billed_to_the_second_and_the_audit_follows(api: Api, stack_home: Path) -> None:
    api.post("/api/metrics", {"key": METRIC})
    price = {"metric": METRIC, "model": "PER_UNIT", "unitPrice": "0.10", "minimum": "7.77"}
    plan: dict[str, Any] = {"name": "Small", "currency": "USD", "basePrice": "31.00"}
    plan |= {"billingPeriod": "MONTHLY", "basePriceTiming": "IN_ADVANCE", "minimum": "60.00"}
    plan |= {"metrics": [price], "discounts": [{"amount": "5.00"}]}
    small = api.post("/api/plans", plan)["id"]
    big = api.post("/api/plans", plan | {"name": "Big", "basePrice": "93.00"})["id"]
    clock = api.post("/api/test-clocks", {"customerId": CUSTOMER})["id"]
    time = ready(api, clock)
    subscription = api.post("/api/subscriptions", {"customerId": CUSTOMER, "planId": small})["id"]
    path = f"/api/subscriptions/{subscription}"
    for what, body in [
        ("change", {"quantity": 3}),
        ("change", {"planId": big}),
        ("pause", {"at": "NOW"}),
        ("resume", {}),
        ("change", {"planId": small, "quantity": 2}),
        ("cancel", {"at": "NOW"}),
    ]:
        time += timedelta(days=9, minutes=7, seconds=31)
        advance(api, clock, time)
        assert ready(api, clock) == time
        api.ok(api.http.post(f"{path}/{what}", json=body))
    advance(api, clock, time + timedelta(days=2))
    ready(api, clock)
    invoices = api.get("/api/invoices", customerId=CUSTOMER, limit="100")["data"]
    found = [api.get(f"/api/invoices/{each['id']}") for each in invoices]
    starts = {line["periodStart"] for each in found for line in each["lines"]} - {None}
    assert sum(datetime.fromisoformat(start).second > 0 for start in starts) >= 3
    done = audit(api, stack_home, "--to", f"{time + timedelta(days=9):%Y-%m-%d}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_costs_less_after_all_is_a_credit_note_that_the_audit_follows(
    api: Api, stack: Connection, stack_home: Path
) -> None:
    answer = api.http.patch("/api/billing-settings", json={"lateUsage": "CREDIT_NOTE"})
    assert api.ok(answer)["lateUsage"] == "CREDIT_NOTE"
    api.post("/api/metrics", {"key": METRIC})
    rate = api.post("/api/tax-rates", {"name": "VAT", "percent": "10"})["id"]
    api.ok(api.http.put("/api/tax-rates/default", json={"taxRateIds": [rate]}))
    plan = api.post("/api/plans", {**WEEKLY, "minimum": "2.50"})["id"]
    clock = api.post("/api/test-clocks", {"customerId": CUSTOMER})["id"]
    start = ready(api, clock)
    subscription = {"customerId": CUSTOMER, "planId": plan, "billingAnchor": "ANNIVERSARY"}
    api.post("/api/subscriptions", subscription)
    sent = [api.track(metric=METRIC, amount=amount, customerId=CUSTOMER) for amount in (7, 30)]
    advance(api, clock, start + timedelta(days=8))
    ready(api, clock)
    (first,) = api.get("/api/invoices", customerId=CUSTOMER)["data"]
    assert first["amount"] == "5.17"
    api.post(f"/api/events/{sent[1].json()['eventId']}/void", {"reason": "A mistake"})
    advance(api, clock, start + timedelta(days=15))
    ready(api, clock)
    (note,) = api.get("/api/credit-notes", customerId=CUSTOMER)["data"]
    # 4.70 become 1.70, which the minimum makes 2.50; with a tenth of it in taxes.
    assert (note["invoiceId"], note["amount"]) == (first["id"], "2.42")
    assert [(each["metric"], each["quantity"], each["amount"]) for each in note["changes"]] == [
        (METRIC, "-30", "-3.00"),
        (None, "1", "0.80"),
    ]
    second, corrected = api.get("/api/invoices", customerId=CUSTOMER)["data"]
    assert (corrected["amountDue"], second["amount"]) == ("2.75", "2.75")
    # One of the first week comes late: what is billed now is what came since the credit note.
    track(api, 12, timestamp=(start + timedelta(minutes=5)).isoformat())
    advance(api, clock, start + timedelta(days=22))
    ready(api, clock)
    third = api.get("/api/invoices", customerId=CUSTOMER)["data"][0]
    (number,) = [n for n, line in enumerate(third["lines"], 1) if line["quantity"] == "12"]
    events = api.get(f"/api/invoices/{third['id']}/lines/{number}/events")["data"]
    assert [each["amount"] for each in events] == ["12"]
    assert sent[1].json()["eventId"] not in [each["id"] for each in events]

    until = ("--to", f"{start + timedelta(days=30):%Y-%m-%d}")
    done = audit(api, stack_home, *until)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 documents chained, 4 worked out" in done.stdout
    damage(
        stack,
        "ALTER TABLE credit_note_changes DISABLE TRIGGER USER",
        f"UPDATE credit_note_changes SET quantity = -29 WHERE credit_note_id = '{note['id']}'"
        " AND metric IS NOT NULL",
        "ALTER TABLE credit_note_changes ENABLE TRIGGER USER",
    )
    found = audit(api, stack_home, *until)
    expect(found, "CN-000001", "quantity")
    expect(found, "CN-000001", "hash of the content")
    # What it is said to have billed is what the next one was to add to.
    expect(found, "INV-000003", "quantity")
