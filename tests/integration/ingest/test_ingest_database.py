"""What ingest's database refuses, and that it reads the bytes ingest sends."""

import re
from decimal import Decimal

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from services.ingest.domain import Status
from services.ingest.tables import metadata
from services.kit.events import canonical_amount
from tests.integration.ingest.instance import Instance, event


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE events SET amount = 2", "never changed or deleted"),
        ("UPDATE events SET amount = amount WHERE false", "never changed or deleted"),
        ("DELETE FROM events", "never changed or deleted"),
        ("TRUNCATE events", "never changed or deleted"),
        ("DELETE FROM event_batches", "never deleted"),
        ("TRUNCATE event_batches CASCADE", "never (deleted|changed)"),
        ("UPDATE event_batches SET accept_time = now()", "only apply_time"),
        ("UPDATE event_batches SET event_count = 2", "only apply_time"),
        ("INSERT INTO events_1 SELECT * FROM events", "pk_events_1"),
        ("INSERT INTO events SELECT * FROM events", "closed"),
        (
            "INSERT INTO events_1 SELECT now(), gen_random_uuid(), organization_id, batch_id, mode,"
            " -1, metric FROM events",
            "ck_events_amount",
        ),
        (
            "INSERT INTO events_1 SELECT now(), gen_random_uuid(), organization_id, batch_id, 0,"
            " 1, metric FROM events",
            "ck_events_mode",
        ),
        (
            "INSERT INTO event_batches SELECT gen_random_uuid(), now(), 0",
            "ck_event_batches_event_count",
        ),
        (
            "INSERT INTO event_batches SELECT gen_random_uuid(), now(), 1, NULL, 1",
            "ck_event_batches_event_count",
        ),
        ("UPDATE event_batches SET event_count = 0, void_count = 1", "only apply_time"),
        ("UPDATE event_voids SET reason = 'x'", "a void is never changed"),
        ("DELETE FROM event_voids", "a void is never changed"),
        ("TRUNCATE event_voids", "a void is never changed"),
    ],
)
async def test_the_database_refuses(ingest: Instance, statement: str, why: str) -> None:
    await ingest.record(event("k"))
    with pytest.raises(DBAPIError, match=why):
        await ingest.sql(statement)
    assert await ingest.count() == 1


async def test_a_batch_is_applied_once(ingest: Instance) -> None:
    await ingest.record(event("k"))
    mark = "UPDATE event_batches SET apply_time = now()"
    await ingest.sql(mark)
    with pytest.raises(DBAPIError, match="once"):
        await ingest.sql(mark)


def is_declared(
    _item: object, name: str | None, kind: str, _reflected: bool, _other: object
) -> bool:
    """Segments are made as they are needed."""
    return kind != "table" or not re.fullmatch(r"events_\d+", name or "")


async def test_the_migrations_make_the_tables_as_declared(ingest: Instance) -> None:
    async with ingest.database.transaction() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(
                MigrationContext.configure(sync, opts={"include_object": is_declared}), metadata
            )
        )
    # Alembic notes its own version there.
    assert [d for d in differences if "alembic_version" not in str(d)] == []


AMOUNTS = st.decimals(min_value=0, max_value=10**26 - 1, places=12) | st.sampled_from(
    [Decimal(0), Decimal("0.000000000001"), Decimal(9999), Decimal(10**4), Decimal(10**37)]
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(AMOUNTS, min_size=1, max_size=200))
async def test_postgresql_reads_the_amounts_that_were_sent(
    ingest: Instance, amounts: list[Decimal]
) -> None:
    sent = [event(amount=f"{amount:f}") for amount in amounts]
    receipts = await ingest.record(*sent)
    assert {Status(receipt.status) for receipt in receipts} == {Status.ACCEPTED}
    rows = await ingest.sql(
        "SELECT 'evt_' || replace(event_id::text, '-', ''), amount::text FROM events"
    )
    stored = dict(tuple(row) for row in rows)
    for receipt, amount in zip(receipts, amounts, strict=True):
        # Not only the same number: the same digits, so that a rebuilt message is the same too.
        assert stored[receipt.event_id] == canonical_amount(f"{amount:f}")


TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=255)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXTS, min_size=1, max_size=50))
async def test_postgresql_reads_the_customers_that_were_sent(
    ingest: Instance, customers: list[str]
) -> None:
    receipts = await ingest.record(*(event(customer_id=customer) for customer in customers))
    rows = await ingest.sql(
        "SELECT 'evt_' || replace(event_id::text, '-', ''), customer_id FROM events"
    )
    stored = dict(tuple(row) for row in rows)
    assert [stored[receipt.event_id] or "" for receipt in receipts] == customers


async def test_the_rows_are_found_by_block_ranges_not_by_further_btrees(ingest: Instance) -> None:
    """Each btree on events costs writers a third of their speed (README)."""
    rows = await ingest.sql("SELECT indexdef FROM pg_indexes WHERE tablename = 'events_1'")
    kinds = sorted("brin" if "USING brin" in row.indexdef else "btree" for row in rows)
    assert kinds == ["brin", "btree"]
