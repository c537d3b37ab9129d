"""How many events were counted, from days, spans of four hours and buckets alike."""

import random
from datetime import timedelta

import pytest

from services.aggregator.activity import Activities
from services.aggregator.folder import Folder
from services.aggregator.rollup_repository import keep_until, roll_up_next
from services.kit.database import Database, TenantKey
from services.kit.errors import InvalidArgumentError
from tests.integration.aggregator.sending import Event, batch, new_tenant, utc

START, END = utc("2026-03-01"), utc("2026-03-08")


@pytest.fixture
def activities(database: Database) -> Activities:
    """One replica's answers."""
    return Activities(database)


def some_events(chance: random.Random) -> list[Event]:
    """Events of a week, of two metrics, with and without a customer."""
    return [
        Event(
            chance.choice(["CALLS", "TOKENS"]),
            "3",
            customer_id=chance.choice(["user_1", "user_2", ""]),
            time=START + timedelta(minutes=chance.randrange(7 * 24 * 60)),
        )
        for _ in range(300)
    ]


async def test_events_are_counted_whatever_they_are_read_from(
    activities: Activities, folder: Folder, database: Database, tenant: TenantKey
) -> None:
    """Half of the week is rolled up; ranges begin and end on any quarter of an hour."""
    chance = random.Random(5)
    events = some_events(chance)
    await folder.apply([batch(tenant, *events)])
    async with database.transaction() as connection:
        await keep_until(connection, utc("2026-03-05"))
    rolled = True
    while rolled:
        async with database.transaction() as connection:
            rolled = await roll_up_next(connection, 100)
    for _ in range(40):
        quarters = sorted(chance.sample(range(7 * 96 + 1), 2))
        start, end = (START + timedelta(minutes=15 * each) for each in quarters)
        activity = await activities.get(tenant, start, end)
        expected = [event.metric for event in events if start <= event.at < end]
        assert activity.event_count == len(expected)
        assert dict(activity.metrics) == {
            metric: expected.count(metric) for metric in set(expected)
        }


async def test_another_organization_has_no_part_in_it(
    activities: Activities, folder: Folder, tenant: TenantKey
) -> None:
    await folder.apply([batch(tenant, Event("CALLS", "1", time=START))])
    stranger = await activities.get(new_tenant(), START, END)
    assert (stranger.event_count, list(stranger.metrics)) == (0, [])


@pytest.mark.parametrize(
    ("start", "end", "field"),
    [
        (START + timedelta(minutes=1), END, "from"),
        (END, START, "to"),
        (START, START + timedelta(days=32), "to"),
    ],
)
async def test_a_range_that_is_none_is_refused(
    activities: Activities, tenant: TenantKey, start: object, end: object, field: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await activities.get(tenant, start, end)  # type: ignore[arg-type]
    assert [problem.field for problem in caught.value.problems] == [field]
