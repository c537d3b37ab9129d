"""No invoice is written while an accepted event of its period is not aggregated."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cli.embedded import EmbeddedNats
from cli.home import new_secret
from cli.ports import free_port
from cli.stack import running_stack
from tests.e2e.api import Api, new_key, wait_for
from tests.e2e.homes import copy_home

# The stack's clock begins this long before the end of a month: time to start it and to send.
BEFORE_THE_END_S = 40
WATCHED_AFTER_THE_END_S = 6


def next_month(instant: datetime) -> datetime:
    first = instant.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


def test_invoice_waits_for_events_that_nats_holds_up_across_the_periods_end(
    tmp_path: Path, prepared_home: Path
) -> None:
    now = datetime.now(UTC)
    end = next_month(now)
    offset_s = int((end - now).total_seconds()) - BEFORE_THE_END_S

    def until_end_s() -> float:
        return (end - datetime.now(UTC)).total_seconds() - offset_s

    nats = EmbeddedNats(tmp_path / "nats", free_port(), new_secret(), tmp_path / "nats.log")
    nats.prepare()
    nats.start()
    asyncio.run(nats.ready())
    environ = {
        "USAGEFLOW_NATS_URL": nats.url,
        "USAGEFLOW_CLOCK_OFFSET_S": str(offset_s),
        "USAGEFLOW_INVOICE_GRACE_S": "0",
    }
    try:
        home = copy_home(prepared_home, tmp_path / "stack")
        with running_stack(home, environ=environ) as connection:
            api = Api(connection.http, connection.api_key)
            api.post("/api/metrics", {"key": "API_CALL"})
            price = {"metric": "API_CALL", "model": "PER_UNIT", "unitPrice": "1.00"}
            plan = {"name": "P", "currency": "USD", "basePrice": "10.00", "metrics": [price]}
            plan_id = api.post("/api/plans", plan)["id"]
            start = end - timedelta(days=1)
            start = start.replace(day=1)
            body = {"customerId": "user_123", "planId": plan_id, "startsAt": start.isoformat()}
            api.post("/api/subscriptions", body)
            assert api.track(new_key()).status_code == 200
            api.await_usage("1", 15)
            nats.stop()
            assert api.track(new_key(), amount=2).status_code == 200
            assert until_end_s() > 0, "this machine was too slow for the test's lead"
            time.sleep(until_end_s() + WATCHED_AFTER_THE_END_S)
            assert api.get("/api/invoices")["data"] == []
            nats.start()
            asyncio.run(nats.ready())
            wait_for("the invoice", lambda: api.get("/api/invoices")["data"], 60)
            (invoice,) = api.get("/api/invoices")["data"]
            assert invoice["amount"] == "13.00"
            assert [line["quantity"] for line in invoice["lines"][1:]] == ["3"]
    finally:
        nats.stop()
