"""What a customer of UsageFlow is told over HTTP, against the raw events."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import httpx

from tests.chaos.facts import StoredEvent
from tests.chaos.findings import Findings, Problem
from tests.chaos.usage import Tenant

TIMEOUT_S = 30.0
FROM_DAYS = 36

Totals = dict[tuple[str, str], dict[str, Fraction]]


async def check(
    url: str, tenants: Mapping[str, Tenant], stored: Sequence[StoredEvent], findings: Findings
) -> None:
    """GET /api/usage of every tenant, metric and customer is the sum of its events."""
    totals: Totals = defaultdict(lambda: defaultdict(Fraction))
    for event in stored:
        if event.void:
            continue
        totals[event.tenant, event.metric][event.customer] += event.amount
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
        for (name, metric), by_customer in totals.items():
            if (tenant := tenants.get(name)) is None:
                findings.add(Problem.NOT_SENT, f"a tenant {name} that nobody knows")
                continue
            told = await _usage(client, tenant, metric, findings)
            for customer in by_customer.keys() | told.keys():
                want, have = by_customer.get(customer, Fraction()), told.get(customer, Fraction())
                if want != have:
                    text = f"{name} {metric} {customer}: {have} is not {want}"
                    findings.add(Problem.OTHER_USAGE_TOLD, text)


async def _usage(
    client: httpx.AsyncClient, tenant: Tenant, metric: str, findings: Findings
) -> dict[str, Fraction]:
    """The figures by customer; none, and a finding, when there is no answer."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    parameters = {
        "metric": metric,
        "from": (today - timedelta(days=FROM_DAYS)).isoformat(),
        "to": (today + timedelta(days=2)).isoformat(),
        "groupBy": "customerId",
    }
    headers = {"x-usageflow-api-key": tenant.api_key}
    response = await client.get("/api/usage", params=parameters, headers=headers)
    if not response.is_success:
        findings.add(Problem.REFUSED, f"/api/usage of {tenant.name} {metric}: {response.text}")
        return {}
    rows: list[dict[str, Any]] = response.json()["data"]
    return {row["group"].get("customerId") or "": Fraction(row["value"]) for row in rows}
