"""How fast a month is closed, and how long a simulation of three months takes."""

import http.client
import json
import time
from dataclasses import replace
from decimal import Decimal
from typing import Any

from benchmarks.aggregated import WITHOUT_REPAIRS
from benchmarks.bench import Bench
from benchmarks.billing import (
    METRICS,
    Billed,
    invoices,
    month_starts,
    write_subscriptions,
    write_usage,
)
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Row
from benchmarks.fresh import fresh_bench
from benchmarks.memory import peak_rss_mb

CUSTOMERS = 10_000
POLL_S = 0.2
CLOSED_S_MAX = 600.0
SIMULATED_S_MAX = 600.0
INCLUDED = 100
UNIT_PRICE, NEW_UNIT_PRICE = Decimal("0.01"), Decimal("0.02")
BASE_PRICE = Decimal("10.00")


def billing(bench: Bench, _name: str) -> list[Row]:
    """Close a month of many customers with three metrics each; then simulate three months."""
    with fresh_bench(bench.plan, bench.report, WITHOUT_REPAIRS) as fresh:
        stored = prepared(fresh)
        pid = fresh.stack.connection.pids["invoicer"]
        rows = [row("close_month", closed(fresh, stored), "invoices/s")]
        rows.append(row("close_month_invoicer_peak_mb", peak_rss_mb(pid), "MB"))
        rows.append(row("simulate", simulated(fresh, stored), "s"))
        rows.append(row("simulate_invoicer_peak_mb", peak_rss_mb(pid), "MB"))
    # A quick run has fewer customers, and must not pass for the whole.
    if stored.customers < CUSTOMERS:
        rows = [replace(each, name=f"{each.name}_{stored.customers}") for each in rows]
    return rows


def row(name: str, value: float, unit: str) -> Row:
    """A figure by itself."""
    return Row(name, value, unit, None, None, None)


def prepared(bench: Bench) -> Billed:
    """Usage that is aggregated, and subscriptions that are due at once."""
    names = tuple(f"BILLED_{number}" for number in range(METRICS))
    for metric in names:
        bench.stack.define(metric)
    stored = Billed(bench.plan.billed_customers, names, month_starts())
    databases = bench.stack.connection.databases
    write_usage(databases["aggregator"], stored, bench.report)
    made = json.loads(post(bench, "/api/plans", plan(stored, UNIT_PRICE)))
    write_subscriptions(databases["invoicer"], made["id"], stored)
    return stored


def plan(stored: Billed, unit_price: Decimal) -> dict[str, Any]:
    """A plan with a price for each metric."""
    return {
        "name": "Billed",
        "currency": "USD",
        "basePrice": str(BASE_PRICE),
        "metrics": [
            {
                "metric": metric,
                "model": "PER_UNIT",
                "includedUnits": str(INCLUDED),
                "unitPrice": str(unit_price),
            }
            for metric in stored.metrics
        ],
    }


def amount(stored: Billed, unit_price: Decimal, used: int) -> Decimal:
    """What a month with so much usage of each metric costs a customer."""
    return BASE_PRICE + len(stored.metrics) * max(used - INCLUDED, 0) * unit_price


def closed(bench: Bench, stored: Billed) -> float:
    """Wait until all are invoiced; how many were a second, from the first to the last."""
    url = bench.stack.connection.databases["invoicer"]
    deadline_s = time.monotonic() + CLOSED_S_MAX
    while (told := invoices(url))[0] < stored.customers:
        if time.monotonic() > deadline_s:
            raise BenchmarkError(f"{told[0]} of {stored.customers} invoices were written")
        time.sleep(POLL_S)
    written, sum_told, seconds = told
    expected = stored.customers * amount(stored, UNIT_PRICE, stored.used[-1])
    if (written, Decimal(sum_told)) != (stored.customers, expected):
        raise BenchmarkError(f"{written} invoices sum to {sum_told}, not {expected}")
    bench.report(f"{written:,} invoices in {seconds:.1f} s")
    return written / seconds


def simulated(bench: Bench, stored: Billed) -> float:
    """Seconds of a simulation over HTTP, from the request to the last line."""
    asked = {
        "plan": plan(stored, NEW_UNIT_PRICE),
        "from": f"{stored.starts[0]:%Y-%m}",
        "to": f"{stored.starts[-2]:%Y-%m}",
    }
    begun_s = time.perf_counter()
    lines = post(bench, "/api/plans/simulate", asked).splitlines()
    seconds = time.perf_counter() - begun_s
    total = json.loads(lines[-1])
    for key, price in (("oldAmount", UNIT_PRICE), ("newAmount", NEW_UNIT_PRICE)):
        expected = stored.customers * sum(amount(stored, price, each) for each in stored.used)
        if Decimal(total[key]) != expected:
            raise BenchmarkError(f"{key} is {total[key]}, not {expected}")
    bench.report(
        f"{total['customers']:,} customers and {len(stored.used)} months in {seconds:.1f} s"
    )
    return seconds


def post(bench: Bench, path: str, body: dict[str, Any]) -> bytes:
    """The body of the answer; BenchmarkError when it is none."""
    client = http.client.HTTPConnection(bench.stack.host, bench.stack.port, timeout=SIMULATED_S_MAX)
    headers = {
        "x-usageflow-api-key": bench.stack.connection.api_key,
        "content-type": "application/json",
    }
    try:
        client.request("POST", path, json.dumps(body), headers)
        answer = client.getresponse()
        read = answer.read()
    finally:
        client.close()
    if answer.status not in (200, 201):
        raise BenchmarkError(f"{path}: {answer.status} {read[:200]!r}")
    return read
