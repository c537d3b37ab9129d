"""From a line of an invoice to the events behind it, over HTTP, whatever came afterwards."""

from datetime import UTC, datetime, timedelta
from typing import Any

from cli.connection import Connection
from tests.e2e.api import Api, new_key, wait_for

WAIT_S = 120.0
METRIC = "LINE_EVENTS"


def test_a_line_leads_to_exactly_the_events_that_it_bills(stack: Connection) -> None:
    api, customer = Api(stack.http, stack.api_key), new_key("customer")
    monday = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    monday -= timedelta(days=monday.weekday() + 14)
    day = (monday + timedelta(days=2)).isoformat()

    def track(amount: str, **more: Any) -> str:
        event = {"metric": METRIC, "customerId": customer, "timestamp": day, **more}
        return str(api.ok(api.track(amount=amount, **event))["eventId"])

    early = track("0", timestamp=(monday - timedelta(days=1)).isoformat())
    billed = [track(str(amount)) for amount in range(1, 6)]
    gone = track("100")
    api.post(f"/api/events/{gone}/void", {"reason": "before the invoice"})
    week = {"from": monday.isoformat(), "to": (monday + timedelta(days=7)).isoformat()}
    api.await_usage("15", WAIT_S, metric=METRIC, customerId=customer, **week)
    price = {"metric": METRIC, "model": "PER_UNIT", "unitPrice": "1"}
    plan = {"name": "P", "currency": "USD", "billingPeriod": "WEEKLY", "metrics": [price]}
    plan_id = api.post("/api/plans", plan)["id"]
    started = {"customerId": customer, "planId": plan_id, "startsAt": monday.isoformat()}
    subscription = api.post("/api/subscriptions", started)["id"]

    def invoices() -> list[dict[str, Any]]:
        return list(api.get("/api/invoices", subscriptionId=subscription)["data"])

    wait_for("two invoices", lambda: len(invoices()) == 2, WAIT_S)
    first = invoices()[-1]
    number = [line["metric"] for line in first["lines"]].index(METRIC) + 1
    assert first["lines"][number - 1]["quantity"] == "15"
    late = track("50")
    api.post(f"/api/events/{billed[0]}/void", {"reason": "after the invoice"})
    path = f"/api/invoices/{first['id']}/lines/{number}/events"
    pages = [api.get(path, limit="3")]
    pages.append(api.get(path, limit="3", cursor=pages[0]["nextCursor"]))
    assert pages[1]["nextCursor"] is None
    assert all(page["exact"] and page["complete"] for page in pages)
    found = {event["id"]: event for page in pages for event in page["data"]}
    assert sorted(found) == sorted(billed)
    assert not {early, gone, late} & set(found)
    void = {each: found[each]["voidReason"] for each in billed if found[each]["voidedAt"]}
    assert void == {billed[0]: "after the invoice"}
    base = [line["metric"] for line in first["lines"]].index(None) + 1
    assert api.get(f"/api/invoices/{first['id']}/lines/{base}/events")["data"] == []
    assert api.http.get(f"/api/invoices/{first['id']}/lines/99/events").status_code == 404
