"""Cases of /api/revenue."""

from typing import Any

from usageflow.invoicer.v1 import invoicer_pb2 as invoicer

from tests.integration.gateway.route_cases import Case, at

# The field's name is a keyword of Python.
FROM: dict[str, Any] = {"from": at(1)}
CASES = [
    Case(
        "GET",
        "/api/revenue?from=2026-01-01T00:00:00Z&to=2026-01-31T00:00:00Z",
        "GetRevenue",
        invoicer.GetRevenueRequest(to=at(31), **FROM),
        invoicer.GetRevenueResponse(
            to=at(31),
            as_of=at(30),
            complete=True,
            currencies=[
                invoicer.CurrencyRevenue(
                    currency="USD", invoiced="120.00", credited="20.00", accrued="3.50"
                )
            ],
            **FROM,
        ),
        {
            "from": "2026-01-01T00:00:00Z",
            "to": "2026-01-31T00:00:00Z",
            "asOf": "2026-01-30T00:00:00Z",
            "complete": True,
            "data": [
                {"currency": "USD", "invoiced": "120.00", "credited": "20.00", "accrued": "3.50"}
            ],
        },
    ),
]
