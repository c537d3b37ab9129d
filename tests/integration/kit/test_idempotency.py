"""Whatever is sent under one idempotency key is done once, and answered alike."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from usageflow.accounts.v1 import accounts_pb2 as pb

from services.kit import clock
from services.kit.database import Database, TenantKey, after_commit, wake_after_commit
from services.kit.errors import ConflictError, InvalidArgumentError, NotFoundError
from services.kit.idempotency import KEPT, PRUNED_MAX, TABLE, Answers, KeyedCall

METHOD = "/usageflow.accounts.v1.AccountsService/CreateApiKey"
TENANT = TenantKey("org_1", "test")
SECRET = "uf_test_shown_once"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database with the table, and one to count in."""
    database = Database(database_url)
    async with database.transaction() as connection:
        await connection.run_sync(TABLE.metadata.create_all)
        await connection.execute(text("CREATE TABLE done (what text PRIMARY KEY)"))
    yield database
    await database.close()


def call(key: str = "key", name: str = "n", **changes: Any) -> KeyedCall:
    """A call of one caller."""
    request = pb.CreateApiKeyRequest(name=name)
    values: dict[str, Any] = {"tenant": TENANT, "actor_id": "key_1", "credential": "uf_test_a"}
    return KeyedCall(**values | changes, key=key, method=METHOD, request=request)


class Doing:
    """A use case that writes a row in a transaction of its own, and tells when it is there."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.runs = 0
        self.seen_after_commit: list[int] = []
        self.failure: Exception | None = None

    async def run(self) -> pb.CreateApiKeyResponse:
        """Do it."""
        self.runs += 1
        async with self._database.transaction() as connection:
            await connection.execute(text("INSERT INTO done VALUES (:n)"), {"n": str(self.runs)})
        await after_commit(self._look)
        wake_after_commit(lambda: self.seen_after_commit.append(-1))
        if self.failure is not None:
            raise self.failure
        return pb.CreateApiKeyResponse(secret=f"{SECRET}_{self.runs}")

    async def _look(self) -> None:
        self.seen_after_commit.append(await self.count())

    async def count(self) -> int:
        """The rows that others see."""
        async with self._database.transaction() as connection:
            return int((await connection.execute(text("SELECT count(*) FROM done"))).scalar_one())


@pytest.fixture
def doing(database: Database) -> Doing:
    """What is to be done once."""
    return Doing(database)


async def test_the_same_call_again_is_answered_alike_and_does_nothing(
    database: Database, doing: Doing
) -> None:
    first = await Answers(database).answer(call(), doing.run)
    again = await Answers(database).answer(call(), doing.run)
    assert first == (pb.CreateApiKeyResponse(secret=f"{SECRET}_1"), False)
    assert again == (pb.CreateApiKeyResponse(secret=f"{SECRET}_1"), True)
    assert (doing.runs, await doing.count()) == (1, 1)


@pytest.mark.parametrize(
    "other",
    [
        {"name": "another"},
        {"actor_id": "key_2", "credential": "uf_test_b"},
    ],
)
async def test_another_call_with_the_key_is_a_conflict(
    database: Database, doing: Doing, other: dict[str, Any]
) -> None:
    answers = Answers(database)
    await answers.answer(call(), doing.run)
    with pytest.raises(ConflictError) as caught:
        await answers.answer(call(**other), doing.run)
    assert caught.value.reason == "idempotency_conflict"
    assert doing.runs == 1


async def test_another_key_or_tenant_is_another_call(database: Database, doing: Doing) -> None:
    answers = Answers(database)
    for keyed in (call(), call("other"), call(tenant=TenantKey("org_1", "live"))):
        assert not (await answers.answer(keyed, doing.run))[1]
    assert await doing.count() == 3


async def test_of_many_at_once_one_is_done(database: Database, doing: Doing) -> None:
    """On two replicas, with more calls than there are connections."""
    replicas = [Answers(database), Answers(database)]
    got = await asyncio.gather(
        *(replicas[number % 2].answer(call(), doing.run) for number in range(20))
    )
    assert sorted(replayed for _answer, replayed in got) == [False] + [True] * 19
    assert len({answer.SerializeToString() for answer, _replayed in got}) == 1
    assert (doing.runs, await doing.count()) == (1, 1)


async def test_what_is_refused_uses_no_key_up_and_leaves_nothing(
    database: Database, doing: Doing
) -> None:
    answers = Answers(database)
    doing.failure = NotFoundError("No such thing")
    with pytest.raises(NotFoundError):
        await answers.answer(call(), doing.run)
    assert (await doing.count(), doing.seen_after_commit) == (0, [])
    doing.failure = None
    assert not (await answers.answer(call(name="corrected"), doing.run))[1]
    assert await doing.count() == 1


async def test_what_is_told_after_the_commit_is_there(database: Database, doing: Doing) -> None:
    await Answers(database).answer(call(), doing.run)
    assert doing.seen_after_commit == [1, -1]
    await doing.run()  # without a key: at once
    assert doing.seen_after_commit == [1, -1, 2, -1]


async def test_a_task_that_outlives_the_call_has_transactions_of_its_own(
    database: Database, doing: Doing
) -> None:
    started: list[asyncio.Task[pb.CreateApiKeyResponse]] = []

    async def start() -> pb.CreateApiKeyResponse:
        started.append(asyncio.create_task(doing.run()))
        await started[0]
        return pb.CreateApiKeyResponse()

    async def refuse() -> pb.CreateApiKeyResponse:
        await start()
        raise NotFoundError("refused after all")

    with pytest.raises(NotFoundError):
        await Answers(database).answer(call(), refuse)
    assert await doing.count() == 1


async def test_the_table_holds_no_key_and_no_secret_and_no_answer_changes(
    database: Database, doing: Doing
) -> None:
    await Answers(database).answer(call("order-1"), doing.run)
    async with database.transaction() as connection:
        row = (await connection.execute(TABLE.select())).one()
    stored = b"".join(each if isinstance(each, bytes) else str(each).encode() for each in row)
    assert b"order-1" not in stored
    assert SECRET.encode() not in stored


async def test_answers_are_kept_for_two_days_and_old_ones_leave_with_new_ones(
    database: Database, doing: Doing
) -> None:
    answers = Answers(database)
    for number in range(PRUNED_MAX + 5):
        await answers.answer(call(f"old-{number}"), doing.run)
    long_ago = {"then": clock.now() - KEPT - timedelta(seconds=1)}
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE idempotency_keys SET create_time = :then"), long_ago)
    await answers.answer(call("new"), doing.run)
    left = text("SELECT count(*) FROM idempotency_keys")
    async with database.transaction() as connection:
        assert (await connection.execute(left)).scalar_one() == 6
    assert timedelta(hours=24) <= KEPT
    assert (await answers.answer(call("new"), doing.run))[1]


@pytest.mark.parametrize("key", ["", "a" * 256, "é", "a\nb"])
async def test_a_key_has_1_to_255_printable_characters(
    database: Database, doing: Doing, key: str
) -> None:
    with pytest.raises(InvalidArgumentError, match="Idempotency-Key: must be 1-255"):
        await Answers(database).answer(call(key), doing.run)
    assert doing.runs == 0
