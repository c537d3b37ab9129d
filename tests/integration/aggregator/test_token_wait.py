"""A question with a usage token is answered with what the token stands for, or not at all."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest
from usageflow.events.v1.events_pb2 import EventBatch

from services.aggregator import token_wait
from services.aggregator.folder import Folder
from services.aggregator.maintenance import INBOX_KEEP_DAYS, Maintenance
from services.aggregator.token_wait import TokenWait
from services.aggregator.usage_service import UsageAnswers
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import NotYetError, UnavailableError
from services.kit.usage_token import UsageToken
from tests.integration.aggregator.conftest import SetWatermark
from tests.integration.aggregator.sending import Event, batch, new_tenant, question


def token_of(*batches: EventBatch, accept_time: datetime | None = None) -> UsageToken:
    ids = tuple(UUID(one.batch_id) for one in batches)
    return UsageToken(ids, accept_time or clock.now())


async def nobody_waits_yet(asked: Sequence[asyncio.Task[object]]) -> None:
    """Let the tasks begin, and check that none is through."""
    for _ in range(100):
        await asyncio.sleep(0)
    assert not any(task.done() for task in asked)


async def figure(answers: UsageAnswers, tenant: TenantKey, token: UsageToken) -> str:
    usage = await answers.query(tenant, question("A"), token)
    return f"{usage.rows[0].value:f}"


async def test_what_was_counted_before_is_answered_at_once(
    answers: UsageAnswers, folder: Folder, tenant: TenantKey
) -> None:
    sent = batch(tenant, Event("A", "5"))
    await folder.apply([sent])
    assert await figure(answers, tenant, token_of(sent)) == "5"


async def test_what_is_counted_meanwhile_is_waited_for(
    answers: UsageAnswers, folder: Folder, tenant: TenantKey
) -> None:
    first, second = batch(tenant, Event("A", "5")), batch(tenant, Event("A", "20"))
    asked = asyncio.create_task(figure(answers, tenant, token_of(first, second)))
    await nobody_waits_yet([asked])
    await folder.apply([first])
    await nobody_waits_yet([asked])
    await folder.apply([second])
    assert await asked == "25"


async def test_what_another_replica_counts_is_found_in_the_inbox(
    answers: UsageAnswers, database: Database, tenant: TenantKey
) -> None:
    another = Folder(database, lambda: None)
    before, meanwhile = batch(tenant, Event("A", "5")), batch(tenant, Event("A", "20"))
    await another.apply([before])
    assert await figure(answers, tenant, token_of(before)) == "5"
    asked = asyncio.create_task(figure(answers, tenant, token_of(meanwhile)))
    await nobody_waits_yet([asked])
    await another.apply([meanwhile])
    assert await asked == "25"


async def test_the_consumer_is_hurried_while_anybody_waits(
    answers: UsageAnswers, folder: Folder, waits: TokenWait, tenant: TenantKey
) -> None:
    first, second = batch(tenant, Event("A")), batch(tenant, Event("A"))
    assert not waits.somebody_waits.is_set()
    asked = [
        asyncio.create_task(figure(answers, tenant, token_of(sent))) for sent in (first, second)
    ]
    await nobody_waits_yet(asked)
    assert waits.somebody_waits.is_set()
    await folder.apply([first])
    await asked[0]
    assert waits.somebody_waits.is_set()
    await folder.apply([second])
    await asked[1]
    assert not waits.somebody_waits.is_set()


async def test_a_batch_that_comes_again_is_known_to_be_counted(
    database: Database, folder: Folder, waits: TokenWait, tenant: TenantKey
) -> None:
    sent = batch(tenant, Event("A"))
    await Folder(database, lambda: None).apply([sent])
    await folder.apply([sent])
    await asyncio.wait_for(waits.until_counted(tenant, token_of(sent)), 1)


async def test_a_token_without_batches_waits_for_the_watermark(
    waits: TokenWait, watermark: SetWatermark, tenant: TenantKey
) -> None:
    watermark.now = clock.now()
    asked = asyncio.create_task(waits.until_counted(tenant, UsageToken((), watermark.now)))
    await nobody_waits_yet([asked])
    watermark.now += timedelta(microseconds=1)
    await asked


async def test_a_batch_that_the_inbox_has_forgotten_is_counted(
    database: Database,
    folder: Folder,
    waits: TokenWait,
    watermark: SetWatermark,
    tenant: TenantKey,
) -> None:
    accepted = clock.now() - timedelta(days=INBOX_KEEP_DAYS, minutes=1)
    old = batch(tenant, Event("A"), accept_time=accepted)
    newer = batch(tenant, Event("A"), accept_time=accepted + timedelta(seconds=1))
    await folder.apply([old, newer])
    watermark.now = clock.now()
    assert await Maintenance(database, watermark).round() == 2
    started_again = TokenWait(database, watermark, 1.0)
    await started_again.until_counted(tenant, token_of(old, accept_time=accepted))


async def test_a_forgotten_batch_beside_a_new_one_holds_nobody_up(
    database: Database, folder: Folder, watermark: SetWatermark, tenant: TenantKey
) -> None:
    """The instant is the newer batch's, so it is not before the horizon: the watermark tells."""
    forgotten, new = uuid4(), batch(tenant, Event("A"))
    await folder.apply([new])
    watermark.now = clock.now() + timedelta(seconds=1)
    waits = TokenWait(database, watermark, 2.0)
    await waits.until_counted(tenant, UsageToken((forgotten, UUID(new.batch_id)), clock.now()))


@pytest.mark.parametrize("ids", [(), (uuid4(),)])
async def test_after_its_deadline_a_question_is_told_to_try_again(
    database: Database, watermark: SetWatermark, tenant: TenantKey, ids: tuple[UUID, ...]
) -> None:
    waits = TokenWait(database, watermark, 0.05)
    for _attempt in range(2):
        with pytest.raises(NotYetError) as refused:
            await waits.until_counted(tenant, UsageToken(ids, clock.now()))
        assert refused.value.retry_after_s == token_wait.RETRY_AFTER_S


async def test_while_ingest_is_away_batches_are_still_found(
    waits: TokenWait, watermark: SetWatermark, database: Database, tenant: TenantKey
) -> None:
    watermark.now = None
    sent = batch(tenant, Event("A"))
    tasks = [
        asyncio.create_task(waits.until_counted(tenant, token))
        for token in (token_of(sent), UsageToken((), clock.now()))
    ]
    await nobody_waits_yet(tasks)
    await Folder(database, lambda: None).apply([sent])
    await tasks[0]
    with pytest.raises(NotYetError):
        await tasks[1]


async def test_one_organization_can_not_take_all_the_places(
    waits: TokenWait, folder: Folder, tenant: TenantKey
) -> None:
    never = UsageToken((uuid4(),), clock.now())
    taken = [
        asyncio.create_task(waits.until_counted(tenant, never))
        for _ in range(token_wait.WAITING_PER_TENANT_MAX)
    ]
    await nobody_waits_yet(taken)
    with pytest.raises(NotYetError):
        await asyncio.wait_for(waits.until_counted(tenant, never), 1)
    sent = batch(new_tenant(), Event("A"))
    other = asyncio.create_task(waits.until_counted(new_tenant(), token_of(sent)))
    await nobody_waits_yet([other])
    await folder.apply([sent])
    await other
    # Whoever goes away leaves the place to others.
    taken.pop().cancel()
    await asyncio.sleep(0)
    taken.append(asyncio.create_task(waits.until_counted(tenant, never)))
    await nobody_waits_yet(taken)
    for task in taken:
        task.cancel()
    await asyncio.gather(*taken, return_exceptions=True)


async def test_when_the_database_is_away_nobody_waits_for_the_deadline(
    watermark: SetWatermark, tenant: TenantKey
) -> None:
    nowhere = Database("postgresql://nobody@127.0.0.1:9/none")
    waits = TokenWait(nowhere, watermark, 60.0)
    with pytest.raises(UnavailableError) as refused:
        await waits.until_counted(tenant, UsageToken((uuid4(),), clock.now()))
    assert not isinstance(refused.value, NotYetError)
    await nowhere.close()


async def test_only_so_many_counted_batches_are_remembered(waits: TokenWait) -> None:
    for start in range(0, 3 * token_wait.COUNTED_REMEMBERED_MAX, 64):
        waits.counted([str(number) for number in range(start, start + 64)])
    assert len(waits._counted) == token_wait.COUNTED_REMEMBERED_MAX
