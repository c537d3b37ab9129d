"""The inbox forgets what can't come back, and a batch that was forgotten is never counted again."""

import asyncio
from datetime import datetime, timedelta

import pytest
import structlog
from sqlalchemy import text

from services.aggregator import fold_repository
from services.aggregator.folder import Folder
from services.aggregator.maintenance import INBOX_KEEP_DAYS, Maintenance
from services.aggregator.usage_service import UsageAnswers
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import UnavailableError
from tests.integration.aggregator.conftest import SetWatermark
from tests.integration.aggregator.sending import Event, batch, total


@pytest.fixture
def maintenance(database: Database, watermark: SetWatermark) -> Maintenance:
    """The loop, round by round."""
    watermark.now = clock.now()
    return Maintenance(database, watermark)


def days_ago(days: float) -> datetime:
    return clock.now() - timedelta(days=days)


async def inbox_size(database: Database) -> int:
    async with database.transaction() as connection:
        return int((await connection.execute(text("SELECT count(*) FROM inbox"))).scalar_one())


async def test_old_batches_are_forgotten_and_not_counted_when_they_come_again(
    database: Database,
    folder: Folder,
    answers: UsageAnswers,
    maintenance: Maintenance,
    tenant: TenantKey,
) -> None:
    old = batch(tenant, Event("A", "1"), accept_time=days_ago(INBOX_KEEP_DAYS + 0.01))
    young = batch(tenant, Event("A", "10"), accept_time=days_ago(INBOX_KEEP_DAYS - 0.01))
    await folder.apply([old, young])
    assert await maintenance.round() == 1
    assert await inbox_size(database) == 1
    with structlog.testing.capture_logs() as logs:
        await folder.apply([old, young, batch(tenant, Event("A", "100"))])
    assert await total(answers, tenant, "A") == 111
    [line] = logs
    assert (line["event"], line["batch_ids"]) == ("batches_before_horizon", [old.batch_id])
    # It is not recorded either: if ingest misses it, ingest hears that it is missing.
    assert await inbox_size(database) == 2


async def test_what_ingest_has_not_seen_confirmed_is_never_forgotten(
    database: Database,
    folder: Folder,
    answers: UsageAnswers,
    watermark: SetWatermark,
    maintenance: Maintenance,
    tenant: TenantKey,
) -> None:
    old = batch(tenant, Event("A", "1"), accept_time=days_ago(30))
    await folder.apply([old])
    watermark.now = days_ago(31)
    assert await maintenance.round() == 0
    await folder.apply([old])
    assert await total(answers, tenant, "A") == 1


async def test_without_ingest_nothing_is_forgotten(
    database: Database,
    folder: Folder,
    watermark: SetWatermark,
    maintenance: Maintenance,
    tenant: TenantKey,
) -> None:
    await folder.apply([batch(tenant, Event("A"), accept_time=days_ago(30))])
    watermark.now = None
    with pytest.raises(UnavailableError):
        await maintenance.round()
    assert await inbox_size(database) == 1


async def test_late_batches_are_counted_as_long_as_nothing_was_forgotten(
    folder: Folder, answers: UsageAnswers, maintenance: Maintenance, tenant: TenantKey
) -> None:
    await maintenance.round()
    await folder.apply([batch(tenant, Event("A", "1"), accept_time=days_ago(9))])
    assert await total(answers, tenant, "A") == 1


async def test_batches_accepted_in_the_same_microsecond_are_told_apart(
    database: Database, folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    accepted = days_ago(9)
    batches = [batch(tenant, Event("A", "1"), accept_time=accepted) for _ in range(4)]
    await folder.apply(batches)
    async with database.transaction() as connection:
        await fold_repository.note_watermark(connection, clock.now())
        assert await fold_repository.prune_inbox(connection, days_ago(2), rows_max=2) == 2
    await folder.apply(batches)
    assert await total(answers, tenant, "A") == 4
    assert await inbox_size(database) == 2


async def test_pruning_while_batches_are_redelivered_counts_none_twice(
    database: Database,
    answers: UsageAnswers,
    maintenance: Maintenance,
    tenant: TenantKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.aggregator.maintenance.PRUNE_ROWS_MAX", 5)
    batches = [
        batch(tenant, Event("A", "1"), accept_time=days_ago(3 - number / 1000))
        for number in range(100)
    ]
    replicas = [Folder(database, lambda: None) for _ in range(3)]
    await replicas[0].apply(batches)

    async def redeliver(replica: Folder) -> None:
        for start in range(0, len(batches), 10):
            await replica.apply(batches[start : start + 10])

    with structlog.testing.capture_logs():
        await asyncio.gather(
            *(redeliver(replica) for replica in replicas), maintenance.round(), maintenance.round()
        )
        await maintenance.round()
        await redeliver(replicas[1])
    assert await inbox_size(database) == 0
    assert await total(answers, tenant, "A") == len(batches)
