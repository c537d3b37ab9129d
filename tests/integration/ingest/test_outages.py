"""PostgreSQL goes away, connections are lost, answers are lost, queues are full."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from pydantic import SecretStr

from services.ingest.domain import Status
from services.kit.errors import OverloadedError, UnavailableError
from services.kit.events import event_id
from tests.integration.ingest.conftest import Start
from tests.integration.ingest.instance import ACME, Instance, event
from tests.integration.ingest.proxy import proxied
from tests.waiting import until

ACCEPTED, DUPLICATE = Status.ACCEPTED, Status.DUPLICATE
WAIT_S = 10.0
# As a committer sends it, and nobody else.
# The message CopyDone; what it ends is one transaction.
COPY_DONE = b"c\0\0\0\4"

COMMITTERS = """
SELECT pid, wait_event_type FROM pg_stat_activity
WHERE application_name = 'usageflow-ingest-committer' AND datname = current_database()
"""


@asynccontextmanager
async def key_locked(url: str, key: str) -> AsyncIterator[None]:
    """Whoever stores this key has to wait: somebody else is storing it and takes it back later."""
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(WAIT_S):
            await connection.execute("BEGIN")
            await connection.execute(
                "INSERT INTO events_1 VALUES (now(), $1, $1, $1, 1, 1, 'm')",
                event_id(ACME.organization, ACME.mode, key.encode()).hex(),
            )
        yield
        await connection.execute("ROLLBACK")
    finally:
        await connection.close()


async def waiting_committer(ingest: Instance) -> int:
    """The process id of the committer that waits for a lock."""
    waiting: list[int] = []

    async def found() -> bool:
        committers = await ingest.sql(COMMITTERS)
        waiting.extend(pid for pid, waits_for in committers if waits_for == "Lock")
        return bool(waiting)

    await until("a committer's wait", found, WAIT_S)
    return waiting[0]


async def terminate(ingest: Instance, pid: int) -> None:
    """End a connection at the server, and wait until it is gone."""
    await ingest.sql(f"SELECT pg_terminate_backend({pid}, 10000)")


async def test_a_committer_cut_off_in_the_middle_tries_again(start: Start, ingest_url: str) -> None:
    ingest = await start()
    async with key_locked(ingest_url, "k"):
        call = asyncio.create_task(ingest.statuses(event("k"), event("other")))
        await terminate(ingest, await waiting_committer(ingest))
        await waiting_committer(ingest)  # on its new connection
    assert await call == [ACCEPTED, ACCEPTED]
    assert await ingest.count() == 2


async def test_a_caller_told_unavailable_retries_and_the_event_is_stored_once(
    start: Start, ingest_url: str
) -> None:
    ingest = await start()
    async with key_locked(ingest_url, "k"):
        call = asyncio.create_task(ingest.statuses(event("k")))
        first = await waiting_committer(ingest)
        await terminate(ingest, first)
        await terminate(ingest, await waiting_committer(ingest))
        with pytest.raises(UnavailableError) as refused:
            await call
        assert refused.value.retry_after_s
    assert await ingest.statuses(event("k")) == [ACCEPTED]
    assert await ingest.statuses(event("k")) == [DUPLICATE]
    assert await ingest.count() == 1


@pytest.mark.parametrize("key", ["k", ""])
async def test_a_lost_answer_to_the_commit_is_found_out(
    start: Start, ingest_url: str, key: str
) -> None:
    """The group is merged again under the same ids: also an event without a key is not doubled."""
    reader = await start()
    async with proxied(ingest_url) as (proxy, url):
        ingest = await start(database_url=SecretStr(url), committers=1)
        await ingest.record(event("warm"))
        proxy.lose_answer_to = COPY_DONE
        assert await ingest.statuses(event(key), event("other")) == [ACCEPTED, ACCEPTED]
        assert proxy.lose_answer_to is None
        assert await reader.count() == 3
        batches = await reader.sql("SELECT event_count FROM event_batches ORDER BY event_count")
        assert batches == [(1,), (2,)]


async def test_when_nobody_knows_the_outcome_a_retry_with_the_key_is_a_duplicate(
    start: Start, ingest_url: str
) -> None:
    reader = await start()
    async with proxied(ingest_url) as (proxy, url):
        ingest = await start(database_url=SecretStr(url), committers=1)
        await ingest.record(event("warm"))
        proxy.lose_answer_to = COPY_DONE
        proxy.refuse_afterwards = True
        with pytest.raises(UnavailableError):
            await ingest.record(event("k"))
        proxy.refuses = False
        assert await ingest.statuses(event("k")) == [DUPLICATE]
    assert await reader.count() == 2


async def test_while_postgresql_is_away_callers_are_told_at_once_and_then_it_goes_on(
    start: Start, ingest_url: str
) -> None:
    async with proxied(ingest_url) as (proxy, url):
        ingest = await start(database_url=SecretStr(url))
        await ingest.record(event("before"))
        proxy.refuses = True
        proxy.cut()
        async with asyncio.timeout(WAIT_S):
            for number in range(20):
                with pytest.raises(UnavailableError):
                    await ingest.record(event(str(number)))
        proxy.refuses = False
        assert await ingest.statuses(event("0"), event("before")) == [ACCEPTED, DUPLICATE]


async def test_a_postgresql_that_hangs_is_given_up_in_time(start: Start, ingest_url: str) -> None:
    ingest = await start(commit_timeout_s=1.0)
    async with key_locked(ingest_url, "k"), asyncio.timeout(WAIT_S):
        with pytest.raises(UnavailableError):
            await ingest.record(event("k"))
    # The transaction that nobody waits for any more may end before the retry, or after it.
    assert await ingest.statuses(event("k")) in ([ACCEPTED], [DUPLICATE])
    assert await ingest.count() == 1


async def test_a_full_queue_refuses_at_once_and_stores_nothing(
    start: Start, ingest_url: str
) -> None:
    ingest = await start(committers=1, events_queued_max=10_000)
    async with key_locked(ingest_url, "k"):
        held = asyncio.create_task(ingest.statuses(event("k")))
        await waiting_committer(ingest)
        full = [event() for _ in range(10_000)]
        filling = asyncio.create_task(ingest.statuses(*full))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError) as refused:
            await ingest.record(event("one too many"))
        assert refused.value.retry_after_s
    assert await held == [ACCEPTED]
    assert set(await filling) == {ACCEPTED}
    assert await ingest.statuses(event("one too many")) == [ACCEPTED]


async def test_a_caller_that_goes_away_does_not_disturb_the_others(
    start: Start, ingest_url: str
) -> None:
    ingest = await start(committers=1)
    async with key_locked(ingest_url, "k"):
        held = asyncio.create_task(ingest.statuses(event("k")))
        await waiting_committer(ingest)
        gone, stays = (asyncio.create_task(ingest.statuses(event(key))) for key in ("a", "b"))
        await asyncio.sleep(0)
        gone.cancel()
    assert await held == [ACCEPTED]
    assert await stays == [ACCEPTED]
    # What it sent was stored all the same: a retry tells.
    assert await ingest.statuses(event("a")) == [DUPLICATE]


async def test_an_event_that_postgresql_refuses_sinks_its_own_call_only(
    start: Start, ingest_url: str
) -> None:
    """Nothing of the kind gets past the checks; a rule added to the table stands in for it."""
    ingest = await start(committers=1)
    await ingest.sql("ALTER TABLE events ADD CONSTRAINT no_seven CHECK (amount <> 7)")
    async with key_locked(ingest_url, "k"):
        held = asyncio.create_task(ingest.statuses(event("k")))
        await waiting_committer(ingest)
        calls = [
            asyncio.create_task(ingest.statuses(event(str(amount), amount=str(amount))))
            for amount in range(5, 10)
        ]
        await asyncio.sleep(0)
    answers = await asyncio.gather(held, *calls, return_exceptions=True)
    refused = [at for at, answer in enumerate(answers) if isinstance(answer, Exception)]
    assert refused == [3]
    assert await ingest.count() == 5
