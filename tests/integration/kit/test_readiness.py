"""What the check of a service's database finds out, on a real server."""

import asyncpg
import pytest

from cli.databases import connected
from cli.embedded import EmbeddedPostgres
from services.kit.errors import UnavailableError
from services.kit.readiness import DatabaseCheck, ReadinessLoop

OWN_CONNECTIONS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE application_name = 'usageflow-readiness' AND datname = $1
"""


async def end_connections(postgres: EmbeddedPostgres, url: str) -> int:
    """End the check's connections at the server; how many there were."""
    async with connected(postgres.url()) as admin:
        return len(await admin.fetch(OWN_CONNECTIONS, url.rpartition("/")[2]))


async def test_one_connection_is_kept_from_check_to_check(
    postgres: EmbeddedPostgres, database_url: str
) -> None:
    check = DatabaseCheck(database_url)
    for _ in range(3):
        await check()
    assert await end_connections(postgres, database_url) == 1
    check.close()


async def test_a_lost_connection_alone_does_not_make_the_database_away(
    postgres: EmbeddedPostgres, database_url: str
) -> None:
    check = DatabaseCheck(database_url)
    await check()
    await end_connections(postgres, database_url)
    await check()
    check.close()


async def test_a_database_that_takes_no_writes_is_away_until_it_does(database_url: str) -> None:
    """As a standby, to which a name may lead for a while after a failover."""
    check = DatabaseCheck(database_url)
    name = database_url.rpartition("/")[2]
    owner = await asyncpg.connect(database_url)
    await owner.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(UnavailableError, match="read-only"):
        await check()
    await owner.execute("SET default_transaction_read_only = off")
    await owner.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await check()
    await owner.close()
    check.close()


async def test_nobody_listening_is_away_and_no_password_is_told() -> None:
    check = DatabaseCheck("postgresql://user:verysecret@127.0.0.1:1/nothing")
    with pytest.raises(UnavailableError) as refused:
        await check()
    assert "verysecret" not in refused.value.message


async def test_changes_are_reported_once_each() -> None:
    outcomes = [True, True, False, False, True]
    reported = []

    async def check() -> None:
        if not outcomes.pop(0):
            raise UnavailableError("gone")

    async def report(ready: bool) -> None:
        reported.append(ready)

    readiness = ReadinessLoop(check, report)
    for _ in range(5):
        await readiness.look()
    assert reported == [True, False, True]
