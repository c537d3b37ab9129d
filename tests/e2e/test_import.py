"""`usageflow import` into a running stack: late events in, each of them once, and all billed."""

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.connection import Connection
from cli.stack import ROOT
from tests.e2e.api import Api, new_organization, wait_for

WAIT_S = 60
LATE_DAYS = 300


@pytest.fixture
def api(stack: Connection, stack_home: Path) -> Api:
    """A new organization, which may import events of the last 400 days."""
    api = Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))
    answer = api.http.patch("/api/organization", json={"settings": {"eventPastDays": 400}})
    assert answer.is_success
    return api


def noon(days_ago: int) -> datetime:
    now = datetime.now(UTC)
    return now.replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=days_ago)


def event(number: int = 0, **changes: Any) -> dict[str, Any]:
    """An event of some 300 days ago, without a key."""
    time = noon(LATE_DAYS) + timedelta(milliseconds=number)
    fields = {"metric": "API_CALL", "amount": 1, "customerId": "user_1"}
    return fields | {"timestamp": time.isoformat()} | changes


def ndjson(events: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in events)


class Command:
    """`usageflow import` with an organization's key."""

    def __init__(self, api: Api) -> None:
        self.argv = [sys.executable, "-m", "cli", "import", "--url", str(api.http.base_url)]
        self.env = {**os.environ, "USAGEFLOW_API_KEY": api.api_key}

    def run(self, *arguments: str | Path, code: int = 0) -> dict[str, int]:
        """The totals it tells; its exit code has to be `code`."""
        done = self.try_run(*arguments)
        assert done.returncode == code, done.stderr
        return {
            name: int(number)
            for name, _, number in (part.partition("=") for part in done.stdout.split())
            if name != "seconds"
        }

    def try_run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            [*self.argv, *map(str, arguments)],
            env=self.env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start it, to be fed through its standard input."""
        return subprocess.Popen(
            [*self.argv, *arguments], env=self.env, cwd=ROOT, stdin=subprocess.PIPE
        )


@pytest.fixture
def command(api: Api) -> Command:
    """The command for that organization."""
    return Command(api)


def totals(lines: int, **changes: int) -> dict[str, int]:
    none = {"accepted": 0, "duplicates": 0, "conflicts": 0, "rejected": 0}
    return {"lines": lines} | none | changes


def usage_of(api: Api, **parameters: str) -> str:
    """All that was counted in the last 400 days."""
    start, end = noon(400).isoformat(), noon(-1).isoformat()
    answer = api.http.get(
        "/api/usage", params={"metric": "API_CALL", "from": start, "to": end, **parameters}
    )
    if not answer.is_success:
        return "0"
    return str((answer.json()["data"] or [{"value": "0"}])[0]["value"])


@pytest.fixture
def running(command: Command) -> Iterator["subprocess.Popen[bytes]"]:
    """An import of standard input."""
    process = command.start("-", "--batch-lines", "500", "--in-flight", "2")
    yield process
    process.kill()
    process.wait(WAIT_S)


def test_an_import_that_was_killed_and_run_again_bills_every_event_once(
    api: Api, command: Command, running: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    """The lines have no keys, and some are equal: those are events of their own."""
    events = [event(number - number % 3, amount=1 + number % 7) for number in range(6_000)]
    assert running.stdin is not None
    running.stdin.write(ndjson(events[:4_000]))
    running.stdin.flush()
    wait_for("some of the events", lambda: usage_of(api) != "0", WAIT_S)
    running.send_signal(signal.SIGKILL)
    assert running.wait(WAIT_S) == -signal.SIGKILL

    file = tmp_path / "events.ndjson"
    file.write_bytes(ndjson(events))
    resumed = command.run(file)
    assert resumed["accepted"] + resumed["duplicates"] == resumed["lines"] == 6_000
    assert 0 < resumed["accepted"] < 6_000
    assert command.run(file, "--gzip") == totals(6_000, duplicates=6_000)
    wanted = str(sum(each["amount"] for each in events))
    wait_for("all of the usage", lambda: usage_of(api) == wanted, WAIT_S)


def test_every_line_that_is_not_taken_is_written_down_with_its_reason(
    api: Api, command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "events.ndjson"
    assert api.track("used", **event(1, amount=5)).is_success
    lines = [
        event(1, idempotencyKey="used", amount=6),
        event(2),
        event(3, customer_id="c"),
        event(4, timestamp=noon(401).isoformat()),
    ]
    file.write_bytes(ndjson(lines) + b"nonsense\n" + ndjson([event(5)]))
    assert command.run(file, code=1) == totals(6, accepted=2, conflicts=1, rejected=3)
    report = (tmp_path / "events.ndjson.rejected.ndjson").read_text().splitlines()
    found = {each["line"]: each for each in map(json.loads, report)}
    assert {number: each["status"] for number, each in found.items()} == {
        1: "CONFLICT",
        3: "REJECTED",
        4: "REJECTED",
        5: "REJECTED",
    }
    assert 'did you mean "customerId"' in found[3]["error"]
    assert "from 400 days ago" in found[4]["error"]
    assert found[5]["event"] == "nonsense"
    assert json.loads(found[1]["event"]) == lines[0]
    # Put right, the file is imported again: what was taken before is not taken twice.
    file.write_bytes(ndjson([lines[1], event(3, customerId="c"), event(5)]))
    assert command.run(file) == totals(3, accepted=1, duplicates=2)
    assert not (tmp_path / "events.ndjson.rejected.ndjson").exists()


def test_a_compressed_csv_is_imported_by_its_header(
    api: Api, command: Command, tmp_path: Path
) -> None:
    rows = [f"API_CALL,0.1,user_{n % 2},{noon(LATE_DAYS).isoformat()},eu,x" for n in range(50)]
    file = tmp_path / "events.csv.gz"
    header = "metric,amount,customer,timestamp,metadata.region,note"
    file.write_bytes(gzip.compress("\n".join([header, *rows]).encode()))
    refused = command.try_run(file)
    assert refused.returncode == 2
    assert 'column "customer" is unknown: did you mean customerId?' in refused.stderr
    mapped = ("--column-map", "customer=customerId", "--column-map", "note=")
    assert command.run(file, "--dry-run", *mapped) == {"dry_run": 1} | totals(50, accepted=50)
    assert command.run(file, "--gzip", *mapped) == totals(50, accepted=50)
    wait_for("the usage", lambda: usage_of(api) == "5", WAIT_S)
    assert usage_of(api, customerId="user_1") == "2.5"


def test_late_events_of_invoiced_periods_are_billed_with_the_next_invoice(
    api: Api, command: Command, tmp_path: Path
) -> None:
    api.post("/api/metrics", {"key": "API_CALL"})
    prices = [{"metric": "API_CALL", "model": "PER_UNIT", "unitPrice": "0.01"}]
    plan = {"name": "P", "currency": "USD", "basePrice": "10.00", "metrics": prices}
    plan_id = api.post("/api/plans", plan)["id"]
    # From the first of the month in which the events happened.
    starts_at = noon(LATE_DAYS).replace(day=1, hour=0)
    given = {"customerId": "user_1", "planId": plan_id, "startsAt": starts_at.isoformat()}
    subscription_id = api.post("/api/subscriptions", given)["id"]

    def invoiced_until() -> str:
        invoices = api.get("/api/invoices", subscriptionId=subscription_id, limit="100")["data"]
        return max((str(invoice["periodEnd"]) for invoice in invoices), default="")

    this_month = noon(0).replace(day=1, hour=0)
    wanted = this_month.isoformat().replace("+00:00", "Z")
    wait_for("all invoices", lambda: invoiced_until() == wanted, WAIT_S)
    file = tmp_path / "events.ndjson"
    file.write_bytes(ndjson([event(number) for number in range(1_000)]))
    assert command.run(file) == totals(1_000, accepted=1_000)
    wait_for("the usage", lambda: usage_of(api) == "1000", WAIT_S)

    preview = api.post("/api/invoices/preview", {"subscriptionId": subscription_id})
    base, now, late = preview["lines"]
    assert (now["quantity"], now["amount"]) == ("0", "0.00")
    assert (late["quantity"], late["amount"]) == ("1000", "10.00")
    assert f"{starts_at:%Y-%m-%d} to " in late["description"]
    assert preview["amount"] == "20.00"
    assert base["amount"] == "10.00"


def test_no_key_is_an_argument_and_a_wrong_one_is_told_at_once(
    api: Api, command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "events.ndjson"
    file.write_bytes(ndjson([event()]))
    key_file = tmp_path / "key"
    key_file.write_text(api.api_key[:-1] + ("a" if api.api_key[-1] != "a" else "b") + "\n")
    refused = command.try_run(file, "--api-key-file", key_file)
    assert refused.returncode == 2
    assert "401 Invalid API key" in refused.stderr
    assert api.api_key[8:-1] not in refused.stdout + refused.stderr
    key_file.write_text(api.api_key + "\n")
    del command.env["USAGEFLOW_API_KEY"]
    assert command.try_run(file).returncode == 2
    assert command.run(file, "--api-key-file", key_file) == totals(1, accepted=1)
