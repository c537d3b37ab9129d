"""Whatever is not counted as it was accepted is found and repaired; what moves is left alone."""

import random
from datetime import datetime, timedelta
from fractions import Fraction

import pytest
from sqlalchemy.exc import DBAPIError

from services.aggregator.quotas import change_repository
from services.aggregator.reconciliation import repository
from services.aggregator.reconciliation.domain import Difference, HourKey, Totals
from services.aggregator.reconciliation.standing import Standings
from services.aggregator.spans import BLOCK
from services.aggregator.void_repository import find_due_recounts
from services.kit import clock
from services.kit.database import TenantKey
from services.kit.errors import UnavailableError
from tests.integration.model.naive import KINDS, Asked, Sent
from tests.integration.reconciliation.conftest import HOUR, Setting

CUSTOMERS = ("user_1", "user_2", "")


def sent(
    amount: str = "1",
    metric: str = "SUM",
    customer_id: str = "user_1",
    minutes: int = 0,
    hour: datetime = HOUR,
) -> Sent:
    return Sent("", metric, amount, customer_id, hour + timedelta(minutes=minutes))


@pytest.fixture
async def tenant(setting: Setting) -> TenantKey:
    """With a metric of each kind."""
    return await setting.world.new_tenant()


async def figure(setting: Setting, tenant: TenantKey, metric: str) -> Fraction:
    asked = Asked(metric, HOUR - timedelta(days=30), HOUR + timedelta(hours=2))
    rows = await setting.world.usage(tenant, asked)
    return next(iter(rows.values()), Fraction(0))


async def test_what_is_right_is_left_as_it_is(setting: Setting, tenant: TenantKey) -> None:
    await setting.send(tenant, sent("0.1"), sent("0.2", customer_id=""))
    await setting.world.settle()
    before = await setting.sql("SELECT *, xmin FROM usage_buckets ORDER BY 1, 2")
    await setting.check()
    assert await setting.differences() == []
    assert await setting.sql("SELECT *, xmin FROM usage_buckets ORDER BY 1, 2") == before


async def test_what_is_on_its_way_is_no_difference(setting: Setting, tenant: TenantKey) -> None:
    first, *_ = await setting.send(tenant, sent("1"), sent("2"))
    await setting.check()
    await setting.world.settle()
    await setting.world.void(tenant, [first])
    await setting.check()
    assert await setting.differences() == []
    await setting.world.settle()
    await setting.check()
    assert await setting.differences() == []
    assert await setting.totals(tenant) == (1, "2")


async def test_a_batch_that_was_never_applied_is_fetched(
    setting: Setting, tenant: TenantKey
) -> None:
    await setting.send(tenant, sent("1"))
    await setting.world.settle()
    await setting.send(tenant, sent("2"), sent("5", metric="MAX"), sent("7", minutes=70))
    [lost] = await setting.world.pending()
    await setting.forget_pending()
    await setting.check()
    assert await setting.totals(tenant) == (3, "10")
    assert await setting.totals(tenant, "MAX") == (1, "5")
    # The batch counts as a whole, also what of it lies in other hours and metrics.
    assert await setting.differences() == [("MAX", 1, 0, True)]
    await setting.world.deliver([lost])
    assert await setting.totals(tenant) == (3, "10")


async def test_a_void_that_was_never_applied_is_fetched(
    setting: Setting, tenant: TenantKey
) -> None:
    first, _ = await setting.send(tenant, sent("4", metric="MAX"), sent("3", metric="MAX"))
    await setting.world.settle()
    await setting.world.void(tenant, [first])
    await setting.forget_pending()
    await setting.check()
    await setting.world.settle()
    assert await setting.totals(tenant, "MAX") == (1, "3")
    assert await figure(setting, tenant, "MAX") == 3
    assert await setting.differences() == [("MAX", 1, 2, True)]


async def test_a_metric_that_nothing_is_known_of_is_made(setting: Setting) -> None:
    stranger = await setting.world.new_tenant()
    await setting.send(stranger, sent("2", metric="NEW"))
    await setting.forget_pending()
    await setting.check()
    assert await setting.totals(stranger, "NEW") == (1, "2")
    assert await setting.differences() == [("NEW", 1, 0, True)]


CORRUPTIONS = {
    "an amount was changed": "UPDATE usage_buckets SET amount_sum = amount_sum + 1",
    "a count was changed": "UPDATE usage_buckets SET event_count = event_count + 1",
    "a bucket has gone": "DELETE FROM usage_buckets WHERE series_id = "
    "(SELECT min(series_id) FROM usage_buckets)",
    "a bucket was made up": "INSERT INTO usage_buckets SELECT series_id, "
    "bucket_start + interval '15 minutes', 1, 1, 1, 1, bucket_start + interval '15 minutes', "
    "latest_event_id, 1, true FROM usage_buckets LIMIT 1",
}


@pytest.mark.parametrize("rolled_up", [False, True])
@pytest.mark.parametrize("what", CORRUPTIONS)
async def test_buckets_that_are_wrong_are_counted_anew(
    setting: Setting, tenant: TenantKey, what: str, *, rolled_up: bool
) -> None:
    amounts = ("3", "1", "2.5")
    for kind in KINDS:
        await setting.send(
            tenant,
            *(
                sent(amount, kind, customer, minutes)
                for minutes, amount in enumerate(amounts)
                for customer in CUSTOMERS
            ),
        )
    await setting.world.settle()
    before = {kind: await figure(setting, tenant, kind) for kind in KINDS}
    if rolled_up:
        await setting.world.roll_up(HOUR + BLOCK)
    await setting.sql(CORRUPTIONS[what])
    await setting.check()
    await setting.world.assert_rolled_up()
    assert {kind: await figure(setting, tenant, kind) for kind in KINDS} == before
    found = await setting.differences()
    assert found
    assert all(repaired for *_, repaired in found)
    await setting.check()
    assert await setting.differences() == found


async def test_a_batch_that_was_counted_twice_is_counted_once(
    setting: Setting, tenant: TenantKey
) -> None:
    await setting.send(tenant, sent("1"), sent("2"))
    [batch] = await setting.world.pending()
    await setting.world.settle()
    await setting.sql("DELETE FROM inbox")
    await setting.world.deliver([batch])
    assert await setting.totals(tenant) == (4, "6")
    await setting.check()
    assert await setting.totals(tenant) == (2, "3")
    assert await setting.differences() == [("SUM", 2, 4, True)]


async def test_usage_that_nobody_accepted_goes(setting: Setting, tenant: TenantKey) -> None:
    await setting.send(tenant, sent("1"))
    await setting.world.settle()
    other = await setting.world.new_tenant()
    await setting.sql(
        "INSERT INTO series (metric_id, series_key, customer_id, dimensions) "
        "SELECT metric_id, CAST(repeat('k', 16) AS bytea), 'ghost', '{}' FROM metrics "
        "WHERE organization_id = :organization_id AND key = 'SUM'",
        organization_id=other.organization_id,
    )
    await setting.sql(
        "INSERT INTO usage_buckets SELECT (SELECT series_id FROM series "
        "WHERE customer_id = 'ghost'), bucket_start, 1, 1, 1, 1, latest_time, latest_event_id, 1, "
        "true FROM usage_buckets"
    )
    assert await setting.totals(other) == (1, "1")
    await setting.check()
    assert await setting.totals(other) == (0, "0")
    assert await setting.totals(tenant) == (1, "1")
    assert await setting.differences() == [("SUM", 0, 1, True)]


async def test_checks_of_quotas_hear_that_an_hour_was_counted_anew(
    setting: Setting, tenant: TenantKey
) -> None:
    """Also of customers of whom nothing is left."""
    await setting.send(tenant, sent("1", customer_id=""))
    await setting.world.settle()
    await setting.sql("UPDATE usage_buckets SET amount_sum = amount_sum + 1")
    [(metric_id,)] = await setting.sql(
        "SELECT metric_id FROM usage_buckets JOIN series USING (series_id)"
    )
    async with setting.database.driving() as driver:
        before = await change_repository.find_changes(driver, None)
    await setting.check()
    async with setting.database.driving() as driver:
        found = await change_repository.find_changes(driver, before.snapshot)
    [change] = found.changes
    assert (change.metric_ids, change.customer_ids, change.quarters) == ([metric_id], [""], None)


async def test_tenants_and_modes_are_held_apart(setting: Setting, tenant: TenantKey) -> None:
    """The same metric and customer: what one lost is not the other's."""
    test_mode = TenantKey(tenant.organization_id, "test")
    other = await setting.world.new_tenant()
    for amount, whose in (("1", tenant), ("2", test_mode), ("4", other)):
        await setting.send(whose, sent(amount))
    await setting.world.settle()
    await setting.sql(
        "DELETE FROM usage_buckets USING series, metrics WHERE mode = 'test' "
        "AND series.series_id = usage_buckets.series_id AND series.metric_id = metrics.metric_id"
    )
    await setting.check()
    assert await setting.totals(tenant) == (1, "1")
    assert await setting.totals(test_mode) == (1, "2")
    assert await setting.totals(other) == (1, "4")
    [(organization_id, mode)] = await setting.sql(
        "SELECT organization_id, mode FROM reconciliation_differences"
    )
    assert (organization_id, mode) == test_mode


async def corrupt(setting: Setting) -> None:
    await setting.sql("UPDATE usage_buckets SET amount_sum = amount_sum + 100")


async def test_what_is_folded_meanwhile_adds_to_what_is_counted_anew(
    setting: Setting, tenant: TenantKey
) -> None:
    await setting.send(tenant, *(sent() for _ in range(3)))
    await setting.world.settle()
    await corrupt(setting)
    done: list[bool] = []

    async def meanwhile() -> None:
        if not done:
            done.append(True)
            await setting.send(tenant, sent("5"), sent("7", customer_id="new"))
            await setting.world.settle()

    setting.source.during_replay = meanwhile
    await setting.check()
    # The buckets are no longer those that were noted: nothing is done.
    assert await setting.totals(tenant) == (5, "115")
    await setting.check()
    assert await setting.totals(tenant) == (5, "15")


async def test_what_comes_between_two_looks_moves(setting: Setting, tenant: TenantKey) -> None:
    await setting.send(tenant, sent())
    await setting.world.settle()
    await corrupt(setting)

    async def meanwhile() -> None:
        await setting.send(tenant, sent("5"))
        await setting.world.settle()

    setting.source.before_count = meanwhile
    await setting.check()
    assert await setting.differences() == []
    setting.source.before_count = type(setting.source).before_count
    await setting.check()
    assert await setting.totals(tenant) == (2, "6")


async def test_extremes_that_are_being_found_anew_come_first(
    setting: Setting, tenant: TenantKey
) -> None:
    first, *_ = await setting.send(tenant, sent("9", "MAX"), sent("3", "MAX"), sent("4", "MAX"))
    await setting.world.settle()
    await setting.world.void(tenant, [first])
    while batches := await setting.world.pending():
        await setting.world.deliver(batches)
        await setting.world.confirm()
    async with setting.database.transaction() as connection:
        assert len(await find_due_recounts(connection, 10)) == 1
    await corrupt(setting)
    await setting.check()
    assert await setting.differences() == [("MAX", 2, 2, False)]
    await setting.world.settle()
    await setting.check()
    assert await setting.differences() == [("MAX", 2, 2, True)]
    assert await figure(setting, tenant, "MAX") == 4
    assert await setting.totals(tenant, "MAX") == (2, "7")


async def test_customers_that_only_lost_usage_named_are_told_of(
    setting: Setting, tenant: TenantKey
) -> None:
    await setting.send(tenant, sent())
    await setting.world.settle()
    for table in ("usage_buckets", "series", "customers_seen", "outbox"):
        await setting.sql(f"DELETE FROM {table}")
    await setting.check()
    assert await setting.totals(tenant) == (1, "1")
    assert [row.customer_id for row in await setting.sql("SELECT customer_id FROM customers_seen")]
    assert setting.told == ["changed"]


@pytest.mark.parametrize("seed", range(3))
async def test_any_interleaving_ends_with_what_was_accepted(
    setting: Setting, tenant: TenantKey, seed: int
) -> None:
    """Losses, doublings and corruptions while events and voids go on."""
    chance = random.Random(seed)
    stored: dict[bytes, tuple[str, Fraction]] = {}
    world = setting.world

    async def go_on() -> None:
        match chance.randrange(6):
            case 0 | 1:
                metric, amount = chance.choice(KINDS), str(chance.randrange(1, 9))
                customer = chance.choice(CUSTOMERS)
                [event_id] = await setting.send(
                    tenant, sent(amount, metric, customer, chance.randrange(60))
                )
                stored[event_id] = (metric, Fraction(amount))
            case 2 if stored:
                event_id = chance.choice(list(stored))
                await world.void(tenant, [event_id])
                del stored[event_id]
            case 3:
                await world.settle()
            case 4:
                # A void may be lost only after its event was applied.
                await world.settle()
                await setting.send(tenant, sent("1", "SUM"))
                await setting.forget_pending()
                [event_id] = set(await world.stored_ids(tenant)) - stored.keys() - void
                stored[event_id] = ("SUM", Fraction(1))
            case 5:
                await world.settle()
                await setting.sql("UPDATE usage_buckets SET amount_sum = amount_sum + 1")
        void.update(set(await world.stored_ids(tenant)) - stored.keys())

    void: set[bytes] = set()
    for _step in range(12):
        await go_on()
        await setting.check()
    await world.settle()
    await setting.check()
    await world.settle()
    for kind in KINDS:
        amounts = [amount for metric, amount in stored.values() if metric == kind]
        count, total = await setting.totals(tenant, kind)
        assert (count, Fraction(total)) == (len(amounts), sum(amounts, Fraction(0))), kind
    assert all(repaired for *_, repaired in await setting.differences())


async def test_when_ingest_is_away_nothing_is_done(setting: Setting, tenant: TenantKey) -> None:
    await setting.send(tenant, sent())
    await setting.world.settle()
    await corrupt(setting)
    await setting.server.stop()
    with pytest.raises(UnavailableError):
        await setting.check()
    assert await setting.totals(tenant) == (1, "101")


KEY = HourKey("org_" + "a" * 32, "live", "SUM", HOUR)
NOTED = Difference(KEY, Totals(1, 1), Totals(2, 2))  # type: ignore[arg-type] # numbers will do


async def test_a_repaired_difference_never_changes(setting: Setting) -> None:
    async with setting.database.transaction() as connection:
        assert await repository.note_difference(connection, NOTED, clock.now())
        assert not await repository.note_difference(connection, NOTED, clock.now())
        assert await repository.close_difference(connection, KEY, clock.now())
        assert not await repository.close_difference(connection, KEY, clock.now())
        # Another one of the same hour.
        assert await repository.note_difference(connection, NOTED, clock.now())
        assert await repository.count_open(connection) == 1
    with pytest.raises(DBAPIError, match="never changes"):
        await setting.sql(
            "UPDATE reconciliation_differences SET accepted_count = 7 WHERE repair_time IS NOT NULL"
        )


WRONG_ROWS = {
    "hour": "hour + interval '1 minute'",
    "mode": "'both'",
    "counted_count": "accepted_count",
    "repair_time": "find_time - interval '1 second'",
}


@pytest.mark.parametrize("column", WRONG_ROWS)
async def test_the_database_refuses_what_is_no_difference(setting: Setting, column: str) -> None:
    noted = Difference(KEY, Totals(1, 1), Totals(2, 1))  # type: ignore[arg-type] # as above
    async with setting.database.transaction() as connection:
        await repository.note_difference(connection, noted, clock.now())
    with pytest.raises(DBAPIError, match="ck_reconciliation_differences"):
        await setting.sql(f"UPDATE reconciliation_differences SET {column} = {WRONG_ROWS[column]}")


async def test_open_differences_are_told_to_whose_they_are(
    setting: Setting, tenant: TenantKey
) -> None:
    standings = Standings(setting.database)
    other = await setting.world.new_tenant()
    await setting.send(tenant, sent("3"))
    await setting.world.settle()
    for metric, repair_time in (("SUM", None), ("COUNT", clock.now() + timedelta(hours=1))):
        await setting.sql(
            "INSERT INTO reconciliation_differences (organization_id, mode, metric, hour,"
            " accepted_count, accepted_sum, counted_count, counted_sum, find_time, check_time,"
            " repair_time) VALUES (:organization_id, :mode, :metric, :hour, 2, 0.3, 1, 0.1, now(),"
            " now(), :repair_time)",
            **tenant._asdict(),
            metric=metric,
            hour=HOUR,
            repair_time=repair_time,
        )
    standing = await standings.get(tenant)
    (found,) = standing.differences
    assert (standing.count, found.metric, found.hour) == (1, "SUM", HOUR)
    assert (found.accepted_count, found.counted_count) == (2, 1)
    assert (await standings.get(other)).count == 0
