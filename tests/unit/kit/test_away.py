"""Which errors mean that PostgreSQL is away, so that the same again may succeed."""

import asyncpg
import pytest

from services.kit.database import is_unavailable


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.exceptions.InternalClientError("cannot switch to state 12; another operation (2)"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        ConnectionResetError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_lost_connection_is_away_however_asyncpg_says_it(error: Exception) -> None:
    assert is_unavailable(error)


def test_wrong_statement_is_not_away() -> None:
    assert not is_unavailable(asyncpg.UndefinedColumnError("no such column"))
