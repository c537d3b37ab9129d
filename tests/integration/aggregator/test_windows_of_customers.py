"""One customer's usage by windows: each event is in the window that holds it, whatever was asked
before, by whatever windows.
"""

from bisect import bisect_right
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from services.aggregator import windows
from services.aggregator.domain import QUARTER, NewMetric
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.questions import UsageQuestion
from services.aggregator.usage_service import UsageAnswers
from services.kit.database import TenantKey
from tests.integration.aggregator.sending import Event, batch, utc

CUSTOMERS = ("user_1", "user_2")
METRICS = ("A", "B")
DAYS = 3
# When something is changed about the clocks of a zone on the second day: half an hour on Lord Howe
# Island; or nothing. The last one begins and ends within an hour.
RANGES = [
    ("UTC", "2026-05-01T00:00"),
    ("Asia/Kathmandu", "2026-05-01T00:30"),
    ("America/New_York", "2026-03-07T05:00"),
    ("Australia/Lord_Howe", "2026-04-03T13:00"),
    ("Australia/Lord_Howe", "2026-10-03T02:15"),
    ("Europe/London", "2026-10-24T10:45"),
]


def amount_of(customer: str, metric: str, quarter: int) -> Decimal:
    return Decimal(1 + quarter) * (1 + CUSTOMERS.index(customer)) * (1 + 9 * METRICS.index(metric))


@pytest.mark.parametrize(("zone", "first"), RANGES)
async def test_each_event_is_in_its_window(
    folder: Folder,
    metrics: Metrics,
    answers: UsageAnswers,
    tenant: TenantKey,
    zone: str,
    first: str,
) -> None:
    await metrics.create(tenant, NewMetric("B", aggregation="MAX"))
    start = utc(first)
    quarters = [start + n * QUARTER for n in range(DAYS * 96)]
    sent = [
        Event(metric, str(amount_of(customer, metric, n)), customer, time=quarter.isoformat()[:16])
        for customer in CUSTOMERS
        for metric in METRICS
        for n, quarter in enumerate(quarters)
    ]
    await folder.apply([batch(tenant, *sent)])

    async def check(
        customer: str, metric: str, window: str, begin: datetime, end: datetime
    ) -> None:
        asked = UsageQuestion(
            metric, customer_id=customer, start=begin, end=end, window=window, time_zone=zone
        )
        usage = await answers.query(tenant, asked)
        starts = list(windows.boundaries(begin, end, window, ZoneInfo(zone)))
        expected: dict[datetime, Decimal] = {}
        for n, quarter in enumerate(quarters):
            if begin <= quarter < end:
                amount = amount_of(customer, metric, n)
                at = starts[bisect_right(starts, quarter) - 1]
                before = expected.get(at, Decimal(0))
                expected[at] = max(before, amount) if metric == "B" else before + amount
        assert {row.start: row.value for row in usage.rows} == expected

    for window in ("15MIN", "HOUR", "DAY", "TOTAL"):
        for cut in (timedelta(0), QUARTER, timedelta(hours=7, minutes=45)):
            for customer in CUSTOMERS:
                for metric in METRICS:
                    await check(customer, metric, window, start + cut, quarters[-1] - cut)
    # Two windows, and one of them cut off.
    await check("user_1", "A", "HOUR", start + QUARTER, start + timedelta(hours=2))
    await check("user_1", "A", "HOUR", start, start + timedelta(hours=2, minutes=15))
