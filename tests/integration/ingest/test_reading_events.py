"""Stored events can be found again, by their own organization and mode only."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from services.ingest.domain import EventFilter, StoredEvent, Tenant
from services.kit import clock
from services.kit.errors import InvalidArgumentError, NotFoundError
from services.kit.events import format_event_id
from services.kit.pages import encode_token
from tests.integration.ingest.instance import ACME, ACME_TEST, OTHER, Instance, event

EVERYTHING = EventFilter()


def micros(time: datetime) -> int:
    return int(time.timestamp()) * 1_000_000 + time.microsecond


async def listed(
    ingest: Instance,
    wanted: EventFilter = EVERYTHING,
    tenant: Tenant = ACME,
    page_size: int = 7,
) -> list[StoredEvent]:
    """All pages of a list, one after another."""
    events: list[StoredEvent] = []
    token = ""
    while True:
        page, token = await ingest.ingest.list_events(tenant, wanted, page_size, token)
        assert len(page) <= page_size
        events += page
        if not token:
            return events


async def test_a_stored_event_is_found_by_its_id(ingest: Instance) -> None:
    at = clock.now() - timedelta(days=2)
    sent = event(
        "k", amount="1.50", customer_id="c", metadata_json='{"a": 1}', at_micros=micros(at)
    )
    [receipt] = await ingest.record(sent)
    found = await ingest.ingest.get_event(ACME, receipt.event_id)
    assert format_event_id(found.event_id) == receipt.event_id
    assert (found.metric, found.amount, found.customer_id) == ("API_CALL", "1.5", "c")
    assert found.event_time == at
    assert found.metadata_json == '{"a": 1}'
    assert timedelta() <= clock.now() - found.accept_time < timedelta(minutes=1)


@pytest.mark.parametrize("tenant", [OTHER, ACME_TEST])
async def test_another_tenants_event_does_not_exist(ingest: Instance, tenant: Tenant) -> None:
    [receipt] = await ingest.record(event("k"))
    with pytest.raises(NotFoundError):
        await ingest.ingest.get_event(tenant, receipt.event_id)
    assert await listed(ingest, tenant=tenant) == []


@pytest.mark.parametrize("event_id", ["", "evt_1", "evt_" + "0" * 32, "x' OR true --"])
async def test_an_id_of_no_event_is_not_found(ingest: Instance, event_id: str) -> None:
    await ingest.record(event("k"))
    with pytest.raises(NotFoundError):
        await ingest.ingest.get_event(ACME, event_id)


async def test_a_list_shows_every_event_once_newest_first(ingest: Instance) -> None:
    now = micros(clock.now())
    minutes = [-4, 0, 1, 1, 1, 5, 30, 60 * 5, 60 * 24, 60 * 24 * 3, 60 * 24 * 34] * 3
    await ingest.record(*(event(at_micros=now - m * 60_000_000) for m in minutes))
    await ingest.record(event(), tenant=OTHER)
    events = await listed(ingest)
    assert len({found.event_id for found in events}) == len(events) == len(minutes)
    places = [(found.event_time, found.event_id) for found in events]
    assert places == sorted(places, reverse=True)


async def test_a_list_is_whole_whatever_the_density_of_its_events(ingest: Instance) -> None:
    """Each query looks at a stretch of time as long as the one before gives reason to."""
    chance, now = random.Random(23), clock.now()
    ages_s = [0.001 * 2.6 ** chance.uniform(0, 22) for _ in range(300)]  # to 16 days, mostly new
    ages_s += [3_600 + number / 1_000 for number in range(200)] + [-30.0]
    times = [micros(now - timedelta(seconds=age_s)) for age_s in ages_s]
    await ingest.record(*(event(at_micros=at, customer_id=f"c{at % 3}") for at in times))
    times.sort(reverse=True)
    for page_size in (7, 100):
        found = await listed(ingest, page_size=page_size)
        assert [micros(each.event_time) for each in found] == times
    of_one = EventFilter(customer_id="c1", to_time=now - timedelta(seconds=3_600))
    found = await listed(ingest, of_one)
    older = [at for at in times if at % 3 == 1 and at < micros(now) - 3_600_000_000]
    assert [micros(each.event_time) for each in found] == older


async def test_events_that_come_in_between_shift_no_page(ingest: Instance) -> None:
    now = micros(clock.now())
    await ingest.record(*(event(at_micros=now - n * 1_000_000) for n in range(10)))
    first, token = await ingest.ingest.list_events(ACME, EVERYTHING, 5, "")
    await ingest.record(*(event(at_micros=now + n) for n in range(5)))
    second, token = await ingest.ingest.list_events(ACME, EVERYTHING, 5, token)
    assert token == ""
    assert len({found.event_id for found in first + second}) == 10


async def test_a_list_can_be_limited_to_a_customer_and_a_metric(ingest: Instance) -> None:
    await ingest.record(
        *(
            event(metric=metric, customer_id=customer)
            for metric in ("A", "B")
            for customer in ("", "c", "d")
            for _ in range(3)
        )
    )
    of_c = await listed(ingest, EventFilter(customer_id="c"))
    assert [found.customer_id for found in of_c] == ["c"] * 6
    of_a = await listed(ingest, EventFilter(metric="A"))
    assert [found.metric for found in of_a] == ["A"] * 9
    both = await listed(ingest, EventFilter(customer_id="d", metric="B"))
    assert [(found.customer_id, found.metric) for found in both] == [("d", "B")] * 3


@pytest.mark.parametrize("hours", [0, 1, 24 * 20])
async def test_a_list_can_be_limited_in_time_start_included_end_not(
    ingest: Instance, hours: int
) -> None:
    end = clock.now() - timedelta(hours=hours)
    start = end - timedelta(days=10)
    inside = [end - timedelta(microseconds=1), start + timedelta(days=3), start]
    outside = [end, end + timedelta(minutes=3), start - timedelta(microseconds=1)]
    await ingest.record(*(event(at_micros=micros(at)) for at in inside + outside))
    found = await listed(ingest, EventFilter(from_time=start, to_time=end), page_size=2)
    assert [stored.event_time for stored in found] == inside


async def test_an_empty_stretch_of_time_is_an_empty_list(ingest: Instance) -> None:
    await ingest.record(event())
    later = clock.now() + timedelta(days=1)
    assert await listed(ingest, EventFilter(from_time=later)) == []
    assert await listed(ingest, EventFilter(from_time=later, to_time=later)) == []


@pytest.mark.parametrize(
    "token",
    [
        "x",
        encode_token("2026-01-01T00:00:00+00:00"),
        encode_token("yesterday", "00" * 16),
        encode_token("2026-01-01T00:00:00+00:00", "00"),
        encode_token("0001-01-01T00:00:00+14:00", "00" * 16),
    ],
)
async def test_a_page_token_of_another_list_is_refused(ingest: Instance, token: str) -> None:
    with pytest.raises(InvalidArgumentError):
        await ingest.ingest.list_events(ACME, EVERYTHING, 5, token)


async def test_an_event_is_found_by_its_idempotency_key(ingest: Instance) -> None:
    [receipt] = await ingest.record(event("k", customer_id="c"))
    await ingest.record(event("other"))
    [found] = await listed(ingest, EventFilter(idempotency_key="k"))
    assert format_event_id(found.event_id) == receipt.event_id
    assert await listed(ingest, EventFilter(idempotency_key="unknown")) == []
    assert await listed(ingest, EventFilter(idempotency_key="k"), tenant=OTHER) == []


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        (EventFilter(idempotency_key="k", customer_id="c", metric="API_CALL"), True),
        (EventFilter(idempotency_key="k", customer_id="d"), False),
        (EventFilter(idempotency_key="k", metric="OTHER"), False),
        (EventFilter(idempotency_key="k", to_time=datetime(2001, 1, 1, tzinfo=UTC)), False),
        (EventFilter(idempotency_key="k", from_time=datetime(2001, 1, 1, tzinfo=UTC)), True),
        (EventFilter(idempotency_key="k", from_time=datetime(2201, 1, 1, tzinfo=UTC)), False),
    ],
)
async def test_a_key_is_one_filter_among_the_others(
    ingest: Instance, wanted: EventFilter, shown: bool
) -> None:
    await ingest.record(event("k", customer_id="c"))
    assert len(await listed(ingest, wanted)) == shown


async def test_a_list_goes_through_closed_and_open_segments_in_order_of_time(
    ingest: Instance,
) -> None:
    """When they were sent has nothing to do with when they happened."""
    now = clock.now()
    for segment in range(4):
        await ingest.record(
            *(
                event(
                    f"{segment}-{at}",
                    customer_id=f"c{at % 3}",
                    metric=f"M{at % 2}",
                    at_micros=micros(now - timedelta(hours=(at * 7 + segment) % 24)),
                )
                for at in range(12)
            )
        )
        if segment < 3:
            await ingest.rotate()
    await ingest.closed_segments(indexed=True)
    everything = await listed(ingest)
    assert len(everything) == 48
    order = [(found.event_time, found.event_id) for found in everything]
    assert order == sorted(order, reverse=True)
    for wanted in (
        EventFilter(customer_id="c1"),
        EventFilter(metric="M1"),
        EventFilter(customer_id="c2", metric="M0"),
        EventFilter(from_time=now - timedelta(hours=9), to_time=now - timedelta(hours=3)),
    ):
        assert await listed(ingest, wanted) == [e for e in everything if wanted.has(e)]
