"""An event is voided once, by whoever comes first, and its void travels after it."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from usageflow.events.v1 import events_pb2

from services.ingest.domain import EventFilter, Status, Tenant
from services.ingest.group import BATCH_BYTES_MAX
from services.ingest.voids import EVENTS_PER_VOID_MAX, VoidStatus
from services.kit import audit, usage_token
from services.kit.database import TenantKey
from services.kit.errors import InvalidArgumentError
from services.kit.messaging import PAYLOAD_BYTES_MAX
from tests.integration.ingest.conftest import Start
from tests.integration.ingest.instance import ACME, ACME_TEST, OTHER, Instance, event

EVERYTHING = EventFilter()
VOIDED, AGAIN, NOT_FOUND = VoidStatus.VOIDED, VoidStatus.ALREADY_VOIDED, VoidStatus.NOT_FOUND


async def recorded(ingest: Instance, count: int, **fields: Any) -> list[str]:
    """The ids of so many new events."""
    receipts = await ingest.record(*(event(f"k{n}", **fields) for n in range(count)))
    return [receipt.event_id for receipt in receipts]


async def voided(
    ingest: Instance, ids: Sequence[str], reason: str = "", tenant: Tenant = ACME
) -> list[VoidStatus]:
    """The statuses of voiding these events."""
    receipts, _token = await ingest.voids.void(tenant, ids, reason, key_id="key_1")
    assert [receipt.event_id for receipt in receipts] == list(ids)
    return [receipt.status for receipt in receipts]


async def pending(ingest: Instance) -> list[str]:
    """The ids of the batches that are to be sent now."""
    return [message.message_id for message in await ingest.outbox.pending(100)]


async def voided_events(ingest: Instance, batch_id: str) -> list[events_pb2.UsageEvent]:
    """The events that a batch voids, as its message has them."""
    [message] = await ingest.outbox.load([batch_id])
    assert [message] == await ingest.outbox.load([batch_id])
    batch = events_pb2.EventBatch.FromString(message.payload)
    [tenant] = batch.tenants
    assert not tenant.events
    return list(tenant.voided_events)


async def test_a_void_is_a_fact_beside_its_event(ingest: Instance) -> None:
    first, second = await recorded(ingest, 2)
    assert await voided(ingest, [first], "sent twice") == [VOIDED]
    stored = await ingest.ingest.get_event(ACME, first)
    [(key_id, reason, void_time)] = await ingest.sql(
        "SELECT key_id, reason, void_time FROM event_voids"
    )
    assert (key_id, reason) == ("key_1", "sent twice")
    assert (stored.void_time, stored.void_reason) == (void_time, "sent twice")
    listed, _token = await ingest.ingest.list_events(ACME, EVERYTHING, 0, "")
    voids = {found.event_id.hex(): found.void_time for found in listed}
    assert voids == {first[4:]: void_time, second[4:]: None}


async def test_voiding_again_changes_nothing(ingest: Instance) -> None:
    ids = await recorded(ingest, 2)
    assert await voided(ingest, [ids[0], ids[0]], "first") == [VOIDED, AGAIN]
    before = await ingest.sql("SELECT * FROM event_voids")
    assert await voided(ingest, ids, "second") == [AGAIN, VOIDED]
    rows = await ingest.sql("SELECT * FROM event_voids WHERE reason = 'first'")
    assert rows == before
    receipts, _token = await ingest.voids.void(ACME, ids[:1], "", key_id="key_1")
    assert receipts[0].void_time == rows[0].void_time


async def test_a_void_is_told_to_the_audit_log_with_who_and_why(ingest: Instance) -> None:
    ids = await recorded(ingest, 3)
    await voided(ingest, ids[:1], "a typo")
    await voided(ingest, ids, "sent twice")
    await voided(ingest, ids)
    assert await voided(ingest, ids, tenant=OTHER) == [NOT_FOUND] * 3
    rows = await ingest.sql("SELECT payload FROM audit_outbox ORDER BY create_time")
    one, several = [audit.from_bytes(row.payload) for row in rows]
    assert one.tenant == several.tenant == TenantKey(ACME.organization_id, "live")
    assert (one.action, one.target_id, one.key_id) == ("event.voided", ids[0], "key_1")
    assert json.loads(one.details_json) == {"eventIds": ids[:1], "reason": "a typo"}
    assert several.target_id == ""
    assert json.loads(several.details_json) == {
        "eventIds": sorted(ids[1:]),
        "reason": "sent twice",
    }


async def test_a_tenant_voids_its_own_events_only(ingest: Instance) -> None:
    [mine] = await recorded(ingest, 1)
    for stranger in (OTHER, ACME_TEST):
        assert await voided(ingest, [mine], tenant=stranger) == [NOT_FOUND]
    assert await voided(ingest, [mine]) == [VOIDED]
    for stranger in (OTHER, ACME_TEST):
        assert await voided(ingest, [mine], tenant=stranger) == [NOT_FOUND]


async def test_what_is_no_event_is_not_found_and_makes_no_batch(ingest: Instance) -> None:
    unknown = f"evt_{0:032x}"
    assert await voided(ingest, ["", "evt_1", unknown]) == [NOT_FOUND] * 3
    assert await pending(ingest) == []


@pytest.mark.parametrize(
    ("ids", "reason", "field"),
    [
        ([], "", "eventIds"),
        ([f"evt_{0:032x}"] * (EVENTS_PER_VOID_MAX + 1), "", "eventIds"),
        (["evt_1"], "x" * 501, "reason"),
        (["evt_1"], "a\nb", "reason"),
    ],
)
async def test_a_wrong_request_names_its_field(
    ingest: Instance, ids: list[str], reason: str, field: str
) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await voided(ingest, ids, reason)
    assert [problem.field for problem in refused.value.problems] == [field]


async def test_two_replicas_void_the_same_events_at_once_and_one_of_them_has_each(
    start: Start,
) -> None:
    replicas = [await start(), await start()]
    ids = await recorded(replicas[0], 200)
    orders = (ids, ids[::-1], ids, ids[::-1])
    answers = await asyncio.gather(
        *(voided(replicas[n % 2], order) for n, order in enumerate(orders))
    )
    flat = sorted(status for statuses in answers for status in statuses)
    assert flat == [VOIDED] * 200 + [AGAIN] * 600
    counts = await replicas[0].sql(
        "SELECT sum(void_count), (SELECT count(*) FROM event_voids) FROM event_batches"
    )
    assert counts == [(200, 200)]


async def test_a_void_waits_until_the_batch_of_its_event_is_applied(ingest: Instance) -> None:
    [first] = await recorded(ingest, 1)
    events_batch = await pending(ingest)
    await voided(ingest, [first])
    assert await pending(ingest) == events_batch
    await ingest.outbox.confirm(events_batch)
    [void_batch] = await ingest.outbox.pending(100)
    assert void_batch.anyones
    [stored] = await voided_events(ingest, void_batch.message_id)
    assert (stored.event_id.hex(), stored.amount) == (first[4:], "1")


async def test_the_watermark_waits_for_voids(ingest: Instance) -> None:
    [first] = await recorded(ingest, 1)
    await ingest.outbox.confirm(await pending(ingest))
    await voided(ingest, [first])
    [(void_time,)] = await ingest.sql("SELECT void_time FROM event_voids")
    assert (await ingest.ingest.watermark()).instant == void_time
    await ingest.outbox.confirm(await pending(ingest))
    assert (await ingest.ingest.watermark()).instant > void_time


async def test_voids_of_large_events_travel_in_messages_that_nats_takes(ingest: Instance) -> None:
    metadata = '{"a":"' + "x" * 8_000 + '"}'
    ids = await recorded(ingest, 300, metadata_json=metadata)
    await ingest.outbox.confirm(await pending(ingest))
    assert await voided(ingest, ids) == [VOIDED] * 300
    batches = await pending(ingest)
    messages = [message for one in batches for message in await ingest.outbox.load([one])]
    assert len(messages) >= 300 * 8_000 // BATCH_BYTES_MAX
    assert max(len(message.payload) for message in messages) <= PAYLOAD_BYTES_MAX


async def test_the_key_of_a_voided_event_stays_used(ingest: Instance) -> None:
    [first] = await recorded(ingest, 1)
    await voided(ingest, [first])
    assert await ingest.statuses(event("k0")) == [Status.DUPLICATE]
    assert await ingest.statuses(event("k0", amount="2")) == [Status.CONFLICT]
    assert await voided(ingest, [first]) == [AGAIN]


async def test_the_usage_token_names_the_batches_of_all_voids(ingest: Instance) -> None:
    ids = await recorded(ingest, 2)
    tokens = [(await ingest.voids.void(ACME, [one], "", key_id="k"))[1] for one in ids]
    _receipts, both = await ingest.voids.void(ACME, ids, "", key_id="k")
    named = [usage_token.decode(token) for token in tokens]
    assert sorted(usage_token.decode(both).batch_ids) == sorted(
        batch_id for token in named for batch_id in token.batch_ids
    )
    assert (await ingest.voids.void(ACME, ["evt_1"], "", key_id="k"))[1] == ""
