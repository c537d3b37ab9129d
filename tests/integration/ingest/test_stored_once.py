"""An event with a key is stored once, however often and in whatever company it comes."""

import asyncio
import random
from collections import Counter
from decimal import Decimal

import pytest

from services.ingest.domain import Status
from services.kit.events import format_event_id
from tests.integration.ingest.conftest import Start
from tests.integration.ingest.instance import ACME, ACME_TEST, OTHER, Instance, event, now_micros

ACCEPTED, DUPLICATE = Status.ACCEPTED, Status.DUPLICATE
CONFLICT, REJECTED = Status.CONFLICT, Status.REJECTED


async def test_a_new_event_is_accepted_and_stored(ingest: Instance) -> None:
    [receipt] = await ingest.record(event("k", amount="12.50", customer_id="c"))
    assert Status(receipt.status) is ACCEPTED
    [row] = await ingest.sql("SELECT * FROM events")
    assert format_event_id(row.event_id.bytes) == receipt.event_id
    assert (row.metric, row.amount, row.customer_id) == ("API_CALL", Decimal("12.5"), "c")
    assert (row.organization_id.bytes, row.mode) == ACME


async def test_a_retry_is_a_duplicate_with_the_same_id(ingest: Instance) -> None:
    first = await ingest.record(event("k"))
    again = await ingest.record(event("k"))
    assert Status(first[0].status) is ACCEPTED
    assert Status(again[0].status) is DUPLICATE
    assert first[0].event_id == again[0].event_id
    assert not again[0].errors
    assert await ingest.count() == 1


AT = now_micros() - 60_000_000


@pytest.mark.parametrize(
    ("changed", "fields"),
    [
        ({"metric": "OTHER"}, ["metric"]),
        ({"amount": "2"}, ["amount"]),
        ({"customer_id": "other"}, ["customerId"]),
        ({"customer_id": ""}, ["customerId"]),
        ({"at_micros": AT + 1}, ["timestamp"]),
        ({"metric": "OTHER", "amount": "2", "customer_id": ""}, ["metric", "amount", "customerId"]),
    ],
)
async def test_the_same_key_with_other_content_is_a_conflict_that_names_the_fields(
    ingest: Instance, changed: dict[str, object], fields: list[str]
) -> None:
    content: dict[str, object] = {"amount": "1", "customer_id": "c", "at_micros": AT}
    [stored] = await ingest.record(event("k", **content))  # type: ignore[arg-type]
    [receipt] = await ingest.record(event("k", **(content | changed)))  # type: ignore[arg-type]
    assert Status(receipt.status) is CONFLICT
    assert [error.field for error in receipt.errors] == fields
    assert receipt.event_id == stored.event_id
    assert await ingest.count() == 1


@pytest.mark.parametrize(
    "again",
    [
        {"amount": "1.50"},
        {"amount": "15e-1"},
        {"at_micros": None},
        {"metadata_json": '{"attempt": 2}'},
    ],
)
async def test_the_same_content_in_other_words_is_a_duplicate(
    ingest: Instance, again: dict[str, object]
) -> None:
    content: dict[str, object] = {"amount": "1.5", "at_micros": AT}
    await ingest.record(event("k", **content))  # type: ignore[arg-type]
    retry = event("k", **(content | again))  # type: ignore[arg-type]
    assert await ingest.statuses(retry) == [DUPLICATE]


async def test_a_key_belongs_to_its_organization_and_mode(ingest: Instance) -> None:
    for tenant in (ACME, ACME_TEST, OTHER):
        assert await ingest.statuses(event("k"), tenant=tenant) == [ACCEPTED]
    assert await ingest.count() == 3


async def test_bad_events_do_not_sink_their_neighbours(ingest: Instance) -> None:
    await ingest.record(event("old"))
    statuses = await ingest.statuses(
        event("a"), event("b", amount="-1"), event("old"), event("old", amount="7"), event("c")
    )
    assert statuses == [ACCEPTED, REJECTED, DUPLICATE, CONFLICT, ACCEPTED]
    assert await ingest.count() == 3


async def test_a_rejected_event_uses_no_key_up(ingest: Instance) -> None:
    assert await ingest.statuses(event("k", amount="x")) == [REJECTED]
    assert await ingest.statuses(event("k", amount="1")) == [ACCEPTED]


async def test_copies_in_one_call_are_treated_like_retries(ingest: Instance) -> None:
    statuses = await ingest.statuses(
        event("k"), event("k"), event("k", amount="2"), event("other"), event("k")
    )
    assert statuses == [ACCEPTED, DUPLICATE, CONFLICT, ACCEPTED, DUPLICATE]
    assert await ingest.count() == 2


async def test_copies_in_one_call_are_compared_with_what_was_stored_before(
    ingest: Instance,
) -> None:
    await ingest.record(event("k", amount="2"))
    assert await ingest.statuses(event("k"), event("k", amount="2")) == [CONFLICT, DUPLICATE]


async def test_events_without_a_key_are_all_stored(ingest: Instance) -> None:
    receipts = await ingest.record(*[event()] * 5)
    assert {Status(receipt.status) for receipt in receipts} == {ACCEPTED}
    assert len({receipt.event_id for receipt in receipts}) == 5
    assert await ingest.count() == 5


async def test_a_call_of_rejected_events_only_is_answered(ingest: Instance) -> None:
    assert await ingest.statuses(event(metric=""), event(amount="")) == [REJECTED] * 2


async def test_nothing_new_makes_no_batch(ingest: Instance) -> None:
    await ingest.record(event("k"))
    await ingest.record(event("k"), event("k", amount="2"))
    assert await ingest.sql("SELECT event_count FROM event_batches") == [(1,)]


async def test_many_callers_with_the_same_keys_store_each_once(start: Start) -> None:
    """Over two instances with two committers each, in calls of random order."""
    instances = [await start(), await start()]
    keys = [str(number) for number in range(50)]
    calls = []
    for number in range(60):
        shuffled = random.Random(number).sample(keys, len(keys))
        calls.append(instances[number % 2].statuses(*map(event, shuffled)))
    answers = Counter(status for call in await asyncio.gather(*calls) for status in call)
    assert answers == {ACCEPTED: 50, DUPLICATE: 59 * 50}
    assert await instances[0].count() == 50


async def test_of_two_contents_for_one_key_at_once_one_wins_and_the_other_is_told(
    start: Start,
) -> None:
    instances = [await start(), await start()]
    for number in range(20):
        pairs = [
            instance.statuses(event(f"k{number}", amount=str(amount)))
            for amount, instance in enumerate(instances, 1)
        ]
        assert sorted(await asyncio.gather(*pairs)) == [[ACCEPTED], [CONFLICT]]


async def test_batches_count_their_events_whatever_came_with_them(start: Start) -> None:
    instance = await start()
    calls = [
        instance.statuses(*(event(str(number % 37)) for number in range(first, first + 10)))
        for first in range(0, 200, 5)
    ]
    await asyncio.gather(*calls)
    counted = await instance.sql(
        "SELECT batch_id, count(*) FROM events GROUP BY batch_id ORDER BY batch_id"
    )
    kept = await instance.sql("SELECT batch_id, event_count FROM event_batches ORDER BY batch_id")
    assert counted == kept
    assert await instance.count() == 37


async def test_a_large_call_is_stored_whole_in_several_batches(ingest: Instance) -> None:
    metadata = '{"a": "' + "x" * 1_000 + '"}'
    events = [event(str(number), metadata_json=metadata) for number in range(3_000)]
    assert set(await ingest.statuses(*events)) == {ACCEPTED}
    batches = await ingest.sql("SELECT event_count FROM event_batches")
    assert len(batches) > 3
    assert sum(count for (count,) in batches) == 3_000
    assert set(await ingest.statuses(*events[:500])) == {DUPLICATE}
