"""Units set aside: never more than there are, whoever asks when and wherever."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal

import pytest

from services.aggregator.domain import NewMetric
from services.aggregator.folder import Folder
from services.aggregator.maintenance import Maintenance
from services.aggregator.metric_service import Metrics
from services.aggregator.quotas.domain import CLOCKS_APART_MAX, Customer
from services.aggregator.quotas.service import Reserved
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
)
from tests.integration.aggregator.conftest import SetWatermark
from tests.integration.aggregator.quota_setting import QuotaReplica, SetClock
from tests.integration.aggregator.sending import Event, batch, new_tenant


@pytest.fixture
async def quotas(
    database: Database, watermark: SetWatermark, metrics: Metrics, tenant: TenantKey
) -> QuotaReplica:
    """One replica, the metric A, and a hard quota of 100 a month."""
    await metrics.create(tenant, NewMetric("A"))
    replica = QuotaReplica.on(database, watermark, tenant)
    await replica.set("100")
    return replica


@pytest.fixture
async def replicas(
    database_url: str, quotas: QuotaReplica, watermark: SetWatermark
) -> AsyncIterator[list[QuotaReplica]]:
    """Three replicas with connections of their own."""
    databases = [Database(database_url, pool_size=5) for _ in range(3)]
    yield [QuotaReplica.on(each, watermark, quotas.tenant) for each in databases]
    for each in databases:
        await each.close()


async def test_64_callers_on_the_last_10_units_get_exactly_10(
    replicas: list[QuotaReplica], folder: Folder
) -> None:
    first = replicas[0]
    await folder.apply([batch(first.tenant, Event("A", "90", "user_1", clock.now()))])
    results = await asyncio.gather(
        *(replicas[number % 3].reserve("1") for number in range(64)), return_exceptions=True
    )
    granted = [result for result in results if isinstance(result, Reserved)]
    refused = [result for result in results if isinstance(result, PreconditionError)]
    assert (len(granted), len(refused)) == (10, 54)
    assert {error.reason for error in refused} == {"quota_exceeded"}
    assert await first.left() == "0"


async def test_a_refusal_tells_what_is_left_and_until_when(quotas: QuotaReplica) -> None:
    await quotas.reserve("98.5")
    with pytest.raises(PreconditionError, match=r"leaves 1\.5 until 20") as caught:
        await quotas.reserve("2")
    metadata = caught.value.metadata
    resets_at = metadata.pop("resets_at")
    assert metadata == {"limit": "100", "used": "0", "reserved": "98.5", "remaining": "1.5"}
    assert resets_at.endswith("-01T00:00:00Z")


async def test_what_is_set_aside_is_neither_left_to_others_nor_to_other_customers_lost(
    quotas: QuotaReplica,
) -> None:
    made = await quotas.reserve("60")
    assert made.states[0].reserved == 60
    assert [await quotas.left(), await quotas.left("user_2")] == ["40", "100"]
    assert not await quotas.allowed("41")


async def test_released_units_are_free_again(quotas: QuotaReplica) -> None:
    made = (await quotas.reserve("60")).reservation
    for _ in range(2):
        assert (await quotas.release(made)).status == "RELEASED"
    assert await quotas.left() == "100"
    with pytest.raises(PreconditionError, match="released"):
        await quotas.commit(made)


async def test_expired_units_are_free_again(
    quotas: QuotaReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = (await quotas.reserve("60", ttl_s=30)).reservation
    watch = SetClock(clock.now() + timedelta(seconds=29))
    monkeypatch.setattr(clock, "now", watch.now)
    assert await quotas.left() == "40"
    watch.time += timedelta(seconds=2)
    assert await quotas.left() == "100"
    with pytest.raises(PreconditionError, match="expired") as caught:
        await quotas.commit(made)
    assert caught.value.reason == "reservation_expired"
    assert (await quotas.release(made)).status == "RELEASED"


async def test_committed_units_stay_set_aside_until_what_was_recorded_is_counted(
    quotas: QuotaReplica, folder: Folder, watermark: SetWatermark
) -> None:
    watermark.now = clock.now()
    made = (await quotas.reserve("60")).reservation
    # The usage is recorded, and still on its way.
    committed = await quotas.commit(made, "55")
    assert (committed.status, committed.committed_amount) == ("COMMITTED", Decimal(55))
    assert await quotas.left() == "45"
    await folder.apply([batch(quotas.tenant, Event("A", "55", "user_1", clock.now()))])
    # It is counted, which nobody knows until ingest says so: too careful for a moment.
    assert await quotas.left() == "0"
    watermark.now = clock.now() + CLOCKS_APART_MAX + timedelta(seconds=1)
    assert await quotas.left() == "45"


async def test_while_ingest_is_away_committed_units_stay_set_aside(
    quotas: QuotaReplica, watermark: SetWatermark
) -> None:
    watermark.now = None
    await quotas.commit((await quotas.reserve("60")).reservation)
    assert await quotas.left() == "40"


async def test_more_than_was_set_aside_may_have_been_used(quotas: QuotaReplica) -> None:
    made = (await quotas.reserve("1")).reservation
    for _ in range(2):
        assert (await quotas.commit(made, "250")).committed_amount == 250
    assert await quotas.left() == "0"
    with pytest.raises(PreconditionError, match="committed"):
        await quotas.commit(made, "251")
    with pytest.raises(PreconditionError, match="committed"):
        await quotas.release(made)
    # Which amount was not said again.
    assert (await quotas.commit(made)).committed_amount == 250


async def test_the_same_key_gives_the_same_reservation(
    replicas: list[QuotaReplica],
) -> None:
    results = await asyncio.gather(
        *(replicas[number % 3].reserve("60", key="k") for number in range(12))
    )
    assert len({result.reservation.reservation_id for result in results}) == 1
    assert await replicas[0].left() == "40"
    for other in ({"amount": "61"}, {"amount": "60", "customer_id": "user_2"}):
        with pytest.raises(ConflictError) as caught:
            await replicas[1].reserve(**other, key="k")  # type: ignore[arg-type]
        assert caught.value.reason == "idempotency_conflict"


async def test_one_key_for_many_customers_at_once_makes_one_reservation(
    replicas: list[QuotaReplica],
) -> None:
    results = await asyncio.gather(
        *(replicas[n % 3].reserve("1", f"user_{n}", key="k") for n in range(12)),
        return_exceptions=True,
    )
    assert len([result for result in results if isinstance(result, Reserved)]) == 1
    assert len([result for result in results if isinstance(result, ConflictError)]) == 11


async def test_a_refusal_uses_no_key_up(quotas: QuotaReplica) -> None:
    made = (await quotas.reserve("60")).reservation
    with pytest.raises(PreconditionError):
        await quotas.reserve("50", key="k")
    await quotas.release(made)
    assert (await quotas.reserve("50", key="k")).reservation.amount == 50


async def test_organizations_and_modes_have_their_own_reservations(
    quotas: QuotaReplica, database: Database, watermark: SetWatermark, metrics: Metrics
) -> None:
    made = (await quotas.reserve("60", key="k")).reservation
    for stranger in (new_tenant(), TenantKey(quotas.tenant.organization_id, "test")):
        await metrics.create(stranger, NewMetric("A"))
        other = QuotaReplica.on(database, watermark, stranger)
        assert (await other.reserve("1", key="k")).reservation.amount == 1
        with pytest.raises(NotFoundError):
            await other.commit(made)
        with pytest.raises(NotFoundError):
            await other.release(made)
        with pytest.raises(NotFoundError):
            await other.reservations.get(stranger, made.reservation_id)
    assert (await quotas.reservations.get(quotas.tenant, made.reservation_id)) == made


async def test_everything_wrong_with_a_reservation_is_named_at_once(quotas: QuotaReplica) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await quotas.reservations.reserve(Customer(quotas.tenant, "A", ""), "0", 86_401, "ä")
    fields = {problem.field for problem in caught.value.problems}
    assert fields == {"customerId", "amount", "ttlSeconds", "idempotencyKey"}
    with pytest.raises(InvalidArgumentError, match="no such"):
        await quotas.reservations.reserve(Customer(quotas.tenant, "NOPE", "u"), "1", 60, "")


async def test_old_reservations_are_forgotten_and_running_ones_are_not(
    quotas: QuotaReplica,
    database: Database,
    watermark: SetWatermark,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released = (await quotas.reserve("1")).reservation
    await quotas.release(released)
    expired = (await quotas.reserve("1", ttl_s=1)).reservation
    watch = SetClock(clock.now() + timedelta(days=2, minutes=1))
    watermark.now = watch.time
    monkeypatch.setattr(clock, "now", watch.now)
    running = (await quotas.reserve("1")).reservation
    await Maintenance(database, watermark).round()
    assert await quotas.reservations.get(quotas.tenant, running.reservation_id) == running
    for gone in (released, expired):
        with pytest.raises(NotFoundError):
            await quotas.reservations.get(quotas.tenant, gone.reservation_id)


@pytest.mark.parametrize("seed", range(3))
async def test_used_and_set_aside_never_exceed_the_limit_whatever_happens_at_once(
    replicas: list[QuotaReplica], database: Database, watermark: SetWatermark, seed: int
) -> None:
    """Callers reserve, record, commit or release while folds lag and watermarks pass."""
    dice = random.Random(seed)
    folder = Folder(database, lambda: None)
    tenant = replicas[0].tenant
    on_the_way: list[Event] = []
    recorded = Decimal(0)

    async def caller(replica: QuotaReplica) -> None:
        nonlocal recorded
        for _ in range(6):
            try:
                made = (await replica.reserve(str(dice.randint(1, 9)))).reservation
            except PreconditionError:
                continue
            await asyncio.sleep(dice.random() / 100)
            if dice.random() < 0.3:
                await replica.release(made)
                continue
            used = Decimal(dice.randint(0, int(made.amount)))
            if used:
                recorded += used
                on_the_way.append(Event("A", f"{used}", "user_1", clock.now()))
            await replica.commit(made, f"{used}")

    async def counting() -> None:
        while not callers.done():
            await asyncio.sleep(dice.random() / 20)
            # What was recorded before this instant is counted below; the clocks are one.
            told = clock.now() + CLOCKS_APART_MAX
            batch_of_these, on_the_way[:] = on_the_way[:], []
            if batch_of_these:
                await folder.apply([batch(tenant, *batch_of_these)])
            watermark.now = told

    callers = asyncio.gather(*(caller(replicas[number % 3]) for number in range(16)))
    await asyncio.gather(callers, counting())
    assert Decimal(80) < recorded <= Decimal(100)
