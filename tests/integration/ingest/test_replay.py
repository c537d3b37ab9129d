"""A replay gives the events of a metric that are not void, each once."""

from datetime import UTC, datetime
from decimal import Decimal

from services.ingest.domain import Tenant
from services.ingest.replay import EVENTS_PER_MESSAGE_MAX, ReplayFilter, Replays
from tests.integration.ingest.instance import ACME, ACME_TEST, OTHER, Instance, event, now_micros


async def amounts(
    ingest: Instance,
    customer_id: str | None = None,
    between: tuple[int | None, int | None] = (None, None),
    tenant: Tenant = ACME,
) -> list[str]:
    """The amounts of the replayed events of API_CALL, sorted; times in microseconds."""
    times = [None if at is None else datetime.fromtimestamp(at // 10**6, UTC) for at in between]
    wanted = ReplayFilter(tenant, "API_CALL", customer_id, times[0], times[1])
    parts = [part async for part in Replays(ingest.database).replay(wanted)]
    assert all(1 <= len(part) <= EVENTS_PER_MESSAGE_MAX for part in parts)
    return sorted(stored.amount for part in parts for stored in part)


async def test_a_replay_is_limited_by_what_it_is_asked_for(ingest: Instance) -> None:
    start = now_micros() - 10**9
    await ingest.record(
        event("a", amount="1", at_micros=start, customer_id="c"),
        event("b", amount="2", at_micros=start + 10**6, customer_id="d"),
        event("c", amount="3", at_micros=start + 2 * 10**6),
        event("d", amount="4", metric="OTHER"),
    )
    await ingest.record(event("e", amount="5"), tenant=OTHER)
    await ingest.record(event("f", amount="6"), tenant=ACME_TEST)
    assert await amounts(ingest) == ["1", "2", "3"]
    assert await amounts(ingest, "c") == ["1"]
    assert await amounts(ingest, "") == ["3"]
    assert await amounts(ingest, between=(start, start + 10**6)) == ["1"]
    assert await amounts(ingest, between=(start + 10**6, None)) == ["2", "3"]
    assert await amounts(ingest, "c", between=(None, start)) == []
    assert await amounts(ingest, tenant=OTHER) == ["5"]


async def test_voided_events_are_left_out(ingest: Instance) -> None:
    receipts = await ingest.record(event("a", amount="1"), event("b", amount="2"))
    await ingest.voids.void(ACME, [receipts[0].event_id], "", key_id="key_1")
    assert await amounts(ingest) == ["2"]


async def test_many_events_come_in_parts_and_as_they_were_accepted(ingest: Instance) -> None:
    metadata = '{"model":"m", "n":1.50}'
    for start in range(0, 6_000, 3_000):
        await ingest.record(
            *(
                event(f"k{n}", amount=f"{n}.5", customer_id="c", metadata_json=metadata)
                for n in range(start, start + 3_000)
            )
        )
    wanted = ReplayFilter(ACME, "API_CALL")
    parts = [part async for part in Replays(ingest.database).replay(wanted)]
    found = [stored for part in parts for stored in part]
    assert len(parts) == 3
    assert len({stored.event_id for stored in found}) == 6_000
    assert {stored.metadata_json for stored in found} == {metadata}
    assert {stored.customer_id for stored in found} == {"c"}
    assert sum(Decimal(stored.amount) for stored in found) == sum(range(6_000)) + 3_000


async def test_a_replay_is_of_one_moment(ingest: Instance) -> None:
    """What comes or is voided while it is read makes no difference."""
    receipts = await ingest.record(*(event(f"k{n}") for n in range(5_000)))
    seen = 0
    async for part in Replays(ingest.database).replay(ReplayFilter(ACME, "API_CALL")):
        if not seen:
            await ingest.record(*(event(f"later{n}") for n in range(100)))
            ids = [receipt.event_id for receipt in receipts[-1_000:]]
            await ingest.voids.void(ACME, ids, "", key_id="key_1")
        seen += len(part)
    assert seen == 5_000
    assert len(await amounts(ingest)) == 4_100
