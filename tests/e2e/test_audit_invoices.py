"""`usageflow audit invoices` on a running stack: what is right passes, damage is found."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from cli.connection import Connection
from tests.e2e.api import Api, new_organization, wait_for
from tests.integration.invoicer.test_document_hashes import load_migration

WAIT_S = 120.0
CUSTOMER = "audited"
METRICS: list[dict[str, Any]] = [
    {"key": "CALLS"},
    {"key": "PEAK", "aggregation": "MAX"},
    {"key": "TOKENS", "dimensions": ["model"]},
    {"key": "USERS", "aggregation": "UNIQUE_COUNT", "uniqueBy": "user"},
    {"key": "PAYOUT"},
    {"key": "JOBS", "aggregation": "COUNT"},
]
TIERS = [{"upTo": "10", "unitPrice": "0.50", "flatPrice": "1"}, {"upTo": None, "unitPrice": "0.25"}]
PRICES: list[dict[str, Any]] = [
    {"metric": "CALLS", "model": "GRADUATED", "includedUnits": "2.5", "tiers": TIERS},
    {"metric": "PEAK", "model": "VOLUME", "tiers": TIERS, "maximum": "3.333"},
    {"metric": "TOKENS", "model": "DIMENSIONAL", "unitPrice": "0.001", "includedUnits": "1",
     "prices": [{"match": {"model": "big"}, "unitPrice": "0.0333"}]},
    {"metric": "USERS", "model": "PACKAGE", "packageSize": "2", "packagePrice": "7"},
    {"metric": "PAYOUT", "model": "PERCENTAGE", "rate": "1.5", "fixedPerEvent": "0.10",
     "freeAmount": "2", "freeEvents": "1", "minPerEvent": "0.13", "maxPerEvent": "0.145"},
    {"metric": "JOBS", "model": "STAIRSTEP", "minimum": "2.005",
     "tiers": [{"upTo": "1", "flatPrice": "0.5"}, {"upTo": None, "flatPrice": "0.7"}]},
]  # fmt: skip


@pytest.fixture(scope="module")
def api(stack: Connection, stack_home: Path) -> Api:
    """An organization of its own, with two weeks of every model, a charge and a credit note."""
    api = Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))
    for metric in METRICS:
        api.post("/api/metrics", metric)
    monday = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    monday -= timedelta(days=monday.weekday() + 14)
    start = monday + timedelta(days=1, hours=6)
    record_events(api, monday)
    rate = api.post("/api/tax-rates", {"name": "VAT", "percent": "19"})["id"]
    api.ok(api.http.put("/api/tax-rates/default", json={"taxRateIds": [rate]}))
    plan = {
        "name": "All",
        "currency": "USD",
        "basePrice": "10.00",
        "billingPeriod": "WEEKLY",
        "metrics": PRICES,
        "discounts": [{"percent": "12.5", "periods": 1}, {"amount": "3"}],
        "minimum": "40",
        "setupFee": "5",
    }
    plan_id = api.post("/api/plans", plan)["id"]
    body = {"customerId": CUSTOMER, "planId": plan_id, "startsAt": start.isoformat()}
    api.post("/api/subscriptions", body)
    wait_for("three invoices", lambda: len(invoices(api)) == 3, WAIT_S)
    api.post(f"/api/customers/{CUSTOMER}/credits/grants", {"amount": "0.40", "currency": "USD"})
    charge = {"customerId": CUSTOMER, "description": "D", "unitPrice": "1.005", "currency": "USD"}
    api.post("/api/charges", {**charge, "timing": "NOW"})
    credit = {"reason": "R", "lines": [{"line": 1, "amount": "0.10"}]}
    api.post(f"/api/invoices/{invoices(api)[1]['id']}/credit-notes", credit)
    return api


def record_events(api: Api, monday: datetime) -> None:
    """In both weeks, of which the first is billed from its second day on; one of them is void."""
    sent = [
        {
            "metric": metric["key"],
            "amount": f"{number}.{week}5",
            "customerId": CUSTOMER,
            "timestamp": (monday + timedelta(days=7 * week + 2, hours=number)).isoformat(),
            "metadata": {"model": "big" if number % 2 else "tiny", "user": f"u{number}"},
        }
        for week in range(2)
        for number in range(1, 5)
        for metric in METRICS
    ]
    result = api.batch(sent)["results"]
    api.post(f"/api/events/{result[0]['eventId']}/void", {"reason": "R"})
    window = {"from": monday.isoformat(), "to": (monday + timedelta(days=14)).isoformat()}
    api.await_usage("19.75", WAIT_S, metric="CALLS", customerId=CUSTOMER, **window)


def invoices(api: Api) -> list[dict[str, Any]]:
    return list(api.get("/api/invoices", customerId=CUSTOMER)["data"])


def audit(api: Api, home: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """`usageflow audit invoices` of the organization."""
    organization_id = api.get("/api/organization")["id"]
    return subprocess.run(
        [sys.executable, "-m", "cli", "audit", "invoices", "--home", str(home),
         "--org", organization_id, "--mode", "test", *more],
        capture_output=True, text=True, check=False, timeout=WAIT_S, env={"COLUMNS": "200"},
    )  # fmt: skip


def damage(stack: Connection, *statements: str) -> None:
    """Change what is stored, as only the owner of the tables can."""

    async def run() -> None:
        connection = await asyncpg.connect(stack.databases["invoicer"])
        tables = ("invoices", "invoice_lines", "invoice_readings", "document_hashes")
        async with connection.transaction():
            for table in tables:
                await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            for statement in statements:
                await connection.execute(statement)
            await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            for table in tables:
                await connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        await connection.close()

    asyncio.run(run())


def note_drop(stack: Connection, organization_id: str, happened: str) -> None:
    """As if an event of test mode that happened then had been dropped."""

    async def run() -> None:
        connection = await asyncpg.connect(stack.databases["ingest"])
        note = "SELECT note_event_drop($1::text::uuid, 2::smallint, $2, $2)"
        whose, time = organization_id.removeprefix("org_"), datetime.fromisoformat(happened)
        await connection.execute(note, whose, time)
        await connection.close()

    asyncio.run(run())


def test_right_invoices_pass_and_damaged_ones_are_found(
    api: Api, stack: Connection, stack_home: Path
) -> None:
    done = audit(api, stack_home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test: 5 documents chained, 5 worked out" in done.stdout
    assert "0 differences" in done.stdout
    organization_id = api.get("/api/organization")["id"]
    whose = f"organization_id = '{organization_id}'"
    second = sorted(invoices(api), key=lambda each: str(each["number"]))[1]
    line = f"{whose} AND invoice_id = '{second['id']}' AND metric = 'CALLS'"

    described = f"UPDATE invoice_lines SET description = %s WHERE {line}"
    [old] = [each["description"] for each in second["lines"] if each["metric"] == "CALLS"]
    damage(stack, described % "'less'")
    expect(audit(api, stack_home), "INV-000002", "hash of the content")
    damage(stack, described % f"'{old}'")

    swapped = (
        f"UPDATE document_hashes SET content_hash = sha256('x'), hash = sha256(previous_hash || "
        f"sha256('x')) WHERE {whose} AND series = 'INV' AND sequence = 2"
    )
    damage(stack, swapped)
    found = audit(api, stack_home)
    expect(found, "INV-000002", "hash of the content")
    expect(found, "INV-000003", "hash of the document before")
    rehashed = [
        f"DELETE FROM document_hashes WHERE {whose}",
        "ALTER TABLE document_hashes ENABLE TRIGGER chain_document",
        load_migration().FILL + " ON CONFLICT DO NOTHING",
    ]
    damage(stack, *rehashed)
    assert audit(api, stack_home).returncode == 0

    # A wrong amount, whose whole chain was forged: nothing but the events can tell.
    dearer = [
        f"UPDATE invoice_lines SET amount = amount + 1 WHERE {line}",
        f"UPDATE invoices SET amount = amount + 1 WHERE {whose} AND id = '{second['id']}'",
    ]
    damage(stack, *dearer, *rehashed)
    found = audit(api, stack_home)
    expect(found, "INV-000002", "amount")
    assert "hash" not in found.stdout

    # Once events of its week are gone, those that are there tell nothing about it.
    calls = [each["metric"] for each in second["lines"]].index("CALLS") + 1
    behind = f"/api/invoices/{second['id']}/lines/{calls}/events"
    assert api.get(behind)["complete"]
    note_drop(stack, organization_id, second["periodStart"])
    assert not api.get(behind)["complete"]
    found = audit(api, stack_home)
    assert "lines not recomputable: events of their periods were dropped" in found.stdout
    assert not [row for row in found.stdout.splitlines() if "CALLS" in row]

    gone = [
        f"DELETE FROM invoice_readings WHERE {whose} AND invoice_id = '{second['id']}'",
        f"DELETE FROM credit_note_lines WHERE {whose}",
        f"DELETE FROM invoice_lines WHERE {whose} AND invoice_id = '{second['id']}'",
        f"DELETE FROM invoice_taxes WHERE {whose} AND invoice_id = '{second['id']}'",
        f"DELETE FROM invoices WHERE {whose} AND id = '{second['id']}'",
    ]
    damage(stack, *(f"ALTER TABLE {t} DISABLE TRIGGER USER" for t in NOTES), *gone_of(gone),
           *(f"ALTER TABLE {t} ENABLE TRIGGER USER" for t in NOTES))  # fmt: skip
    found = audit(api, stack_home)
    expect(found, "INV 2", second["id"])


NOTES = ("credit_notes", "credit_note_lines", "invoice_taxes")


def gone_of(statements: list[str]) -> list[str]:
    """The credit note goes with its lines."""
    notes = statements[1].replace("credit_note_lines", "credit_notes")
    return [statements[0], statements[1], notes, *statements[2:]]


def expect(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """A row of the table has all of these words."""
    assert done.returncode == 1, done.stdout + done.stderr
    rows = [row for row in done.stdout.splitlines() if all(word in row for word in words)]
    assert rows, done.stdout


def test_only_documents_of_the_range_are_worked_out(api: Api, stack_home: Path) -> None:
    done = audit(api, stack_home, "--from", "2020-01-01", "--to", "2020-02-01")
    assert " 0 worked out" in done.stdout


def test_subscriptions_that_change_pass_too(stack: Connection, stack_home: Path) -> None:
    """Base prices in advance, seats, another plan in mid-period: each second is paid for once."""
    api = Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    plan: dict[str, Any] = {"name": "Seats", "currency": "USD", "basePrice": "10.01", "metrics": []}
    plan |= {"basePriceTiming": "IN_ADVANCE", "minimum": "33.33", "maximum": "60"}
    plan["discounts"] = [{"percent": "7.5"}, {"amount": "1.11", "periods": 2}]
    seats = api.post("/api/plans", plan)["id"]
    other = api.post("/api/plans", {**plan, "basePrice": "99.99", "basePriceTiming": "IN_ARREARS"})

    def subscribe(customer: str, days: int, anchor: str) -> str:
        body = {"customerId": customer, "planId": seats, "quantity": 3, "billingAnchor": anchor}
        body["startsAt"] = (midnight - timedelta(days=days)).isoformat()
        return str(api.post("/api/subscriptions", body)["id"])

    def billed(subscription: str) -> int:
        return len(api.get("/api/invoices", subscriptionId=subscription, limit="100")["data"])

    ended = subscribe("long", 100, "CALENDAR")
    moved = subscribe("moved", 10, "ANNIVERSARY")
    wait_for("the opening", lambda: billed(moved) == 1, WAIT_S)
    wait_for("the months that are over", lambda: billed(ended) >= 4, WAIT_S)
    for subscription in (ended, moved):
        api.post(f"/api/subscriptions/{subscription}/change", {"quantity": 5})
    api.post(f"/api/subscriptions/{moved}/change", {"planId": other["id"]})
    wait_for("the part on the first plan", lambda: billed(moved) >= 2, WAIT_S)
    done = audit(api, stack_home)
    assert done.returncode == 0, done.stdout + done.stderr
