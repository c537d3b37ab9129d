"""`usageflow simulate` on a running stack, against figures that were worked out by hand."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cli.connection import Connection
from tests.e2e.api import Api, new_organization

WAIT_S = 120.0


def test_a_draft_plan_over_usage_that_has_been(
    stack: Connection, stack_home: Path, tmp_path: Path
) -> None:
    """A percentage of each event, too: its events come from ingest."""
    api = Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))
    now = datetime.now(UTC)
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    # Of this month, or of the last days of the one before.
    start = first if now.day > 1 else (first - timedelta(days=1)).replace(day=1)
    for metric in ("SIMULATED", "PAID_OUT"):
        api.post("/api/metrics", {"key": metric})
    for customer, calls in (("small", 30), ("large", 2_000)):
        events = [{"metric": "SIMULATED", "amount": calls, "customerId": customer}]
        events += [
            {"metric": "PAID_OUT", "amount": amount, "customerId": customer}
            for amount in (1_000, 10, 300)
        ]
        for number, event in enumerate(events):
            event["timestamp"] = (start + timedelta(minutes=number)).isoformat()
        assert api.batch(events)["accepted"] == len(events)
    window = {"from": start.isoformat(), "to": (start + timedelta(days=1)).isoformat()}
    api.await_usage("2030", WAIT_S, metric="SIMULATED", **window)
    api.await_usage("2620", WAIT_S, metric="PAID_OUT", **window)
    present = {"metric": "SIMULATED", "model": "PER_UNIT", "unitPrice": "0.10"}
    plan = {"name": "Now", "currency": "USD", "basePrice": "10", "metrics": [present]}
    plan_id = api.post("/api/plans", plan)["id"]
    for customer in ("small", "large"):
        body = {"customerId": customer, "planId": plan_id, "startsAt": start.isoformat()}
        api.post("/api/subscriptions", body)
    each = {"metric": "PAID_OUT", "model": "PERCENTAGE", "rate": "2"}
    each |= {"freeEvents": "1", "minPerEvent": "0.50", "maxPerEvent": "5"}
    cheaper = {**present, "unitPrice": "0.04"}
    draft = tmp_path / "draft.json"
    draft.write_text(json.dumps({"currency": "USD", "basePrice": 60, "metrics": [cheaper, each]}))
    command = [sys.executable, "-m", "cli", "simulate", str(draft), "--from", f"{start:%Y-%m}"]
    done = subprocess.run(
        [*command, "--plan", plan_id, "--json", "--url", stack.http],
        capture_output=True, text=True, check=False, timeout=WAIT_S,
        env={**os.environ, "USAGEFLOW_API_KEY": api.api_key},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    told = {line["customerId"]: line for line in lines if line["type"] == "customer"}
    # 1,000 is free; 10 x 2 % = 0.20 -> 0.50; 300 x 2 % = 6 -> 5: 5.50
    # small: 10 + 30 x 0.10 = 13; 60 + 30 x 0.04 + 5.50 = 66.70
    # large: 10 + 2,000 x 0.10 = 210; 60 + 2,000 x 0.04 + 5.50 = 145.50
    amounts = ("oldAmount", "newAmount", "difference")
    assert [told["small"][name] for name in amounts] == ["13.00", "66.70", "53.70"]
    assert [told["large"][name] for name in amounts] == ["210.00", "145.50", "-64.50"]
    total = lines[-1]
    assert (total["type"], total["customers"], total["difference"]) == ("total", 2, "-10.80")
    assert api.get("/api/plans")["data"][0]["id"] == plan_id
