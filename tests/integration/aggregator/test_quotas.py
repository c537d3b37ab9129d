"""Quotas: who is limited by which, and what is left."""

import asyncio
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.aggregator.domain import NewMetric
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.quotas.checking import READ_TOGETHER_MAX
from services.aggregator.quotas.domain import Customer, QuotaSettings
from services.aggregator.watermark import WatermarkSource
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import InvalidArgumentError, NotFoundError
from tests.integration.aggregator.conftest import SetWatermark
from tests.integration.aggregator.quota_setting import QuotaReplica
from tests.integration.aggregator.sending import Event, batch, new_tenant


@pytest.fixture
async def quotas(
    database: Database, watermark: WatermarkSource, metrics: Metrics, tenant: TenantKey
) -> QuotaReplica:
    """One replica; the metric A is defined."""
    await metrics.create(tenant, NewMetric("A"))
    return QuotaReplica.on(database, watermark, tenant)


def now_event(amount: str = "1", customer_id: str = "user_1", metric: str = "A") -> Event:
    """An event that happens now."""
    return Event(metric, amount, customer_id, clock.now())


async def test_without_a_quota_everything_is_allowed(quotas: QuotaReplica) -> None:
    assert await quotas.allowed("9" * 38)
    assert await quotas.left() is None


async def test_what_is_used_in_the_period_is_no_longer_left(
    quotas: QuotaReplica, folder: Folder
) -> None:
    await quotas.set("10.5")
    await folder.apply([batch(quotas.tenant, now_event("4"), now_event("0.1"))])
    await folder.apply([batch(quotas.tenant, now_event("100", "user_2"))])
    assert await quotas.left() == "6.4"
    assert await quotas.allowed("6.4")
    assert not await quotas.allowed("6.400000000001")
    assert await quotas.left("user_2") == "0"
    assert await quotas.left("user_3") == "10.5"


async def test_usage_of_an_earlier_period_does_not_count(
    quotas: QuotaReplica, folder: Folder
) -> None:
    await quotas.set("10", period="DAY")
    await quotas.set("100", period="TOTAL")
    yesterday = clock.now() - timedelta(days=1)
    await folder.apply([batch(quotas.tenant, Event("A", "95", "user_1", yesterday))])
    assert await quotas.left() == "5"
    await folder.apply([batch(quotas.tenant, now_event("2"))])
    assert await quotas.left() == "3"
    await quotas.set("3", period="DAY")
    assert await quotas.left() == "1"


async def test_a_customers_own_quota_goes_before_the_default(quotas: QuotaReplica) -> None:
    await quotas.set("10")
    await quotas.set("500", "big")
    await quotas.set(None, "free")
    assert [await quotas.left(who) for who in ("user_1", "big", "free")] == ["10", "500", None]
    assert await quotas.allowed("9" * 38, "free")


async def test_a_soft_quota_tells_and_allows(quotas: QuotaReplica, folder: Folder) -> None:
    await quotas.set("10", enforcement="SOFT")
    await folder.apply([batch(quotas.tenant, now_event("12"))])
    assert await quotas.allowed("5")
    assert await quotas.left() == "0"


async def test_a_quota_of_a_count_counts_events(
    quotas: QuotaReplica, folder: Folder, metrics: Metrics
) -> None:
    await metrics.create(quotas.tenant, NewMetric("CALLS", aggregation="COUNT"))
    await quotas.set("3", metric="CALLS")
    sent = [now_event("50", metric="CALLS") for _ in range(2)]
    await folder.apply([batch(quotas.tenant, *sent)])
    assert await quotas.left(metric="CALLS") == "1"


async def test_setting_again_sets_the_same_quota_in_full(quotas: QuotaReplica) -> None:
    first = await quotas.set("10", enforcement="SOFT")
    second = await quotas.set("20", time_zone="Asia/Kathmandu")
    assert (second.quota_id, second.create_time) == (first.quota_id, first.create_time)
    assert second.settings.enforcement == "HARD"
    assert await quotas.quotas.get(quotas.tenant, first.quota_id) == second


async def test_a_deleted_quota_limits_nothing(quotas: QuotaReplica) -> None:
    made = await quotas.set("10")
    await quotas.quotas.delete(quotas.tenant, made.quota_id)
    assert await quotas.left() is None
    for gone in (made.quota_id, "quota_" + "0" * 32, "", "a\0b"):
        with pytest.raises(NotFoundError):
            await quotas.quotas.delete(quotas.tenant, gone)
        with pytest.raises(NotFoundError):
            await quotas.quotas.get(quotas.tenant, gone)


async def test_quotas_are_listed_newest_first_in_pages(quotas: QuotaReplica) -> None:
    made = [await quotas.set("1", f"user_{number}") for number in range(5)]
    first, token = await quotas.quotas.list(quotas.tenant, "", None, 3, "")
    rest, end = await quotas.quotas.list(quotas.tenant, "A", None, 3, token)
    assert first + rest == made[::-1]
    assert end == ""
    assert await quotas.quotas.list(quotas.tenant, "", "user_2", 0, "") == ([made[2]], "")
    assert await quotas.quotas.list(quotas.tenant, "B", None, 0, "") == ([], "")
    with pytest.raises(InvalidArgumentError):
        await quotas.quotas.list(quotas.tenant, "", None, 0, "nonsense")


async def test_organizations_and_modes_have_their_own_quotas(
    quotas: QuotaReplica, database: Database, watermark: WatermarkSource, metrics: Metrics
) -> None:
    made = await quotas.set("10")
    for stranger in (new_tenant(), TenantKey(quotas.tenant.organization_id, "test")):
        await metrics.create(stranger, NewMetric("A"))
        other = QuotaReplica.on(database, watermark, stranger)
        assert await other.left() is None
        assert await other.quotas.list(stranger, "", None, 0, "") == ([], "")
        with pytest.raises(NotFoundError):
            await other.quotas.get(stranger, made.quota_id)
        with pytest.raises(NotFoundError):
            await other.quotas.delete(stranger, made.quota_id)


async def test_everything_wrong_with_a_quota_is_named_at_once(
    quotas: QuotaReplica, metrics: Metrics
) -> None:
    bad = QuotaSettings("NOPE", "x" * 256, "YEAR", None, "MEDIUM", "Mars/Olympus")
    with pytest.raises(InvalidArgumentError) as caught:
        await quotas.quotas.set(quotas.tenant, bad, "-1")
    fields = {problem.field for problem in caught.value.problems}
    assert fields == {"metric", "customerId", "period", "enforcement", "timezone", "limit"}
    await metrics.create(quotas.tenant, NewMetric("PEAK", aggregation="MAX"))
    with pytest.raises(InvalidArgumentError, match="SUM or COUNT"):
        await quotas.set("1", metric="PEAK")


@pytest.mark.parametrize(
    ("customer", "amount", "field"),
    [
        (("A", ""), "1", "customerId"),
        (("A", "a\0b"), "1", "customerId"),
        (("A", "user_1"), "-1", "amount"),
        (("A", "user_1"), "1e3", "amount"),
        (("NOPE", "user_1"), "1", "metric"),
        (("a\0b", "user_1"), "1", "metric"),
    ],
)
async def test_a_wrong_check_names_the_field(
    quotas: QuotaReplica, customer: tuple[str, str], amount: str, field: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await quotas.checks.check(Customer(quotas.tenant, *customer), amount)
    assert [problem.field for problem in caught.value.problems] == [field]


async def test_many_checks_at_once_are_answered_each_by_its_own_state(
    quotas: QuotaReplica, folder: Folder, watermark: SetWatermark
) -> None:
    await quotas.set("1000")
    many = range(READ_TOGETHER_MAX + 50)
    sent = [now_event(str(number), f"user_{number}") for number in many]
    await folder.apply([batch(quotas.tenant, *sent)])
    names = [Customer(quotas.tenant, "A", f"user_{number}") for number in many]
    asked = [quotas.checks.check(name, "0") for name in names]
    asked += [quotas.checks.check(name, "0") for name in names]
    unknown = quotas.checks.check(Customer(quotas.tenant, "NOPE", "user_1"), "0")
    *answers, refused = await asyncio.gather(*asked, unknown, return_exceptions=True)
    assert isinstance(refused, InvalidArgumentError)
    left = [answer.states[0].remaining for answer in answers]  # type: ignore[union-attr]
    assert left == [1000 - number for number in many] * 2
    # What is remembered answers without anybody.
    watermark.now = None
    await quotas.checks.check(names[0], "0")


async def test_a_check_that_fails_fails_for_all_who_wait_and_for_nobody_after(
    quotas: QuotaReplica, database: Database
) -> None:
    customer = Customer(quotas.tenant, "A", "user_1")
    broken = QuotaReplica.on(database, _Broken(), quotas.tenant)
    results = await asyncio.gather(
        *(broken.checks.check(customer, "1") for _ in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [RuntimeError] * 3
    assert await quotas.allowed("1")


class _Broken:
    last = None

    async def ask(self) -> datetime:
        raise RuntimeError("broken")


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.decimals("0", "100", places=3),
            st.integers(0, 40 * 24),
        ),
        max_size=12,
    )
)
async def test_what_is_left_is_the_limit_less_the_sum_of_the_periods_events(
    database: Database,
    watermark: SetWatermark,
    folder: Folder,
    metrics: Metrics,
    sent: list[tuple[int, Decimal, int]],
) -> None:
    tenant = new_tenant()
    await metrics.create(tenant, NewMetric("A"))
    quotas = QuotaReplica.on(database, watermark, tenant)
    made = await quotas.set("100000", time_zone="Asia/Kathmandu")
    now = clock.now()
    events = [
        Event("A", str(amount), f"user_{who}", now - timedelta(hours=hours))
        for who, amount, hours in sent
    ]
    if events:
        await folder.apply([batch(tenant, *events)])
    period = made.period_at(now)
    assert period is not None
    start, end = period
    for who in range(3):
        used = sum(
            amount
            for (customer, amount, _), event in zip(sent, events, strict=True)
            if customer == who and start <= event.at < end
        )
        quotas.checks.forget_all()
        answer = await quotas.checks.check(Customer(tenant, "A", f"user_{who}"), "0")
        assert answer.states[0].used == used
