"""The block range index follows the writers, and never stands in anybody's way."""

import pytest

from services.ingest import maintenance
from tests.integration.ingest.instance import Instance, event

PAGES_PER_BATCH = """
EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM events
WHERE batch_id = (SELECT batch_id FROM events_1 WHERE ctid = '(0,1)')
"""


@pytest.fixture
def unsummarized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is summarized by itself."""
    monkeypatch.setattr(maintenance, "SUMMARIZE_EVERY_CHECKS", 1_000_000)


@pytest.mark.usefixtures("unsummarized")
async def test_a_batch_is_found_by_reading_a_few_pages(ingest: Instance) -> None:
    for _ in range(15):
        await ingest.record(*(event() for _ in range(1_000)))
    await ingest.sql("ANALYZE events_1")
    before = await pages_read(ingest)
    assert await ingest.storage.maintenance.summarize() > 2
    assert await ingest.storage.maintenance.summarize() == 0
    assert await pages_read(ingest) < before / 2


@pytest.mark.usefixtures("unsummarized")
async def test_so_it_is_in_a_segment_that_was_just_closed(ingest: Instance) -> None:
    for _ in range(15):
        await ingest.record(*(event() for _ in range(1_000)))
    await ingest.rotate()
    await ingest.closed_segments(filtered=True, indexed=True)
    left = "SELECT brin_summarize_new_values('ix_events_1_batch_id_event_time')"
    assert await ingest.sql(left) == [(0,)]


async def pages_read(ingest: Instance) -> int:
    """Pages of events that are read to rebuild the first batch."""
    async with ingest.database.transaction() as connection:
        await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        [(plan,)] = await connection.exec_driver_sql(PAGES_PER_BATCH)
    node = plan[0]["Plan"]
    while node["Node Type"] != "Bitmap Heap Scan":
        node = node["Plans"][-1]
    return int(node["Lossy Heap Blocks"])


async def test_maintenance_gives_way_to_whoever_is_busy_with_the_table(ingest: Instance) -> None:
    async with ingest.database.transaction() as connection:
        await connection.exec_driver_sql("LOCK events_1 IN SHARE UPDATE EXCLUSIVE MODE")
        assert await ingest.storage.maintenance.summarize() == 0
    assert len(await ingest.record(event())) == 1
