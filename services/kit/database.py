"""PostgreSQL through SQLAlchemy's asyncio engine and asyncpg."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from services.kit.errors import UnavailableError
from services.kit.tenant import TenantKey

__all__ = ["Database", "TenantKey", "is_unavailable", "metadata_naming", "sqlalchemy_url"]

CONNECT_TIMEOUT_S = 5.0
POOL_WAIT_S = 5.0
COMMAND_TIMEOUT_S = 30.0
IDLE_IN_TRANSACTION_TIMEOUT_MS = 60_000
RETRY_AFTER_S = 1.0

# One scheme for the names of constraints, so that migrations can name what they change.
metadata_naming = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


@dataclass
class _Together:
    """A transaction that others of the same task join, and what waits for its commit."""

    database: "Database"
    connection: AsyncConnection
    task: asyncio.Task[object] | None
    after: list[Callable[[], Awaitable[None] | None]] = field(default_factory=list)


_together: ContextVar[_Together | None] = ContextVar("together", default=None)


def _joined() -> _Together | None:
    """The transaction to join; none in a task that was started within it, which outlives it."""
    found = _together.get()
    return found if found is not None and found.task is asyncio.current_task() else None


def commits_later() -> bool:
    """Whether what this task does is committed only after the caller has its answer ready."""
    return _joined() is not None


async def after_commit(do: Callable[[], Awaitable[None] | None]) -> None:
    """Do what others notice of a commit: now, or when the joined transaction is committed."""
    joined = _joined()
    if joined is not None:
        joined.after.append(do)
    elif (doing := do()) is not None:
        await doing


def wake_after_commit(wake: Callable[[], None]) -> None:
    """As after_commit, for what does not wait."""
    joined = _joined()
    if joined is not None:
        joined.after.append(wake)
    else:
        wake()


def sqlalchemy_url(url: str) -> str:
    """`postgresql://...` with the driver that SQLAlchemy is to use."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("postgresql", "postgres"):
        raise ValueError("USAGEFLOW_DATABASE_URL must begin with postgresql://")
    return f"postgresql+asyncpg://{rest}"


@contextmanager
def _telling_when_away() -> Iterator[None]:
    """UnavailableError in the place of whatever means that PostgreSQL is away."""
    try:
        yield
    except Exception as error:
        if is_unavailable(error):
            raise UnavailableError(
                "The database is away; try again", retry_after_s=RETRY_AFTER_S
            ) from error
        raise


class Database:
    """A service's own database: a pool of connections and transactions on them."""

    def __init__(self, url: str, *, pool_size: int = 5, application_name: str = "usageflow"):
        settings = {
            "application_name": application_name,
            "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
            # Short statements over and over: compiling them just in time costs more than it saves.
            "jit": "off",
        }
        self.engine: AsyncEngine = create_async_engine(
            sqlalchemy_url(url),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_WAIT_S,
            pool_pre_ping=False,
            # An error's text goes to the log; what was to be written (keys, bodies) does not.
            hide_parameters=True,
            connect_args={
                "timeout": CONNECT_TIMEOUT_S,
                "command_timeout": COMMAND_TIMEOUT_S,
                "server_settings": settings,
            },
        )

        self._alone = self.engine.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """BEGIN .. COMMIT; ROLLBACK on any error; UnavailableError when PostgreSQL is away.

        When COMMIT itself fails nobody can know whether it took place: what is written must be
        safe to write again.

        Within together() it is a part of that transaction.
        """
        joined = _joined()
        begun = (
            joined.connection.begin_nested()
            if joined is not None and joined.database is self
            else None
        )
        with _telling_when_away():
            if begun is not None and joined is not None:
                async with begun:
                    yield joined.connection
                return
            async with self.engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def together(self) -> AsyncIterator[AsyncConnection]:
        """One transaction of all that the caller's task does in here by transaction().

        What after_commit() and wake_after_commit() were given is done when it is committed.
        """
        async with self.transaction() as connection:
            group = _Together(self, connection, asyncio.current_task())
            token = _together.set(group)
            try:
                yield connection
            finally:
                _together.reset(token)
        for do in group.after:
            if (doing := do()) is not None:
                await doing

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which each statement is a transaction of its own, without BEGIN and
        COMMIT: for what is read by one statement. UnavailableError as above.
        """
        with _telling_when_away():
            async with self._alone.connect() as connection:
                yield connection

    @asynccontextmanager
    async def driving(self) -> AsyncIterator[Any]:
        """asyncpg's own connection from the pool, each statement a transaction of its own: for one
        that is asked thousands of times a second, at a third of the processor time.

        A connection that anything went wrong with is closed. UnavailableError as above.
        """
        with _telling_when_away():
            async with self._alone.connect() as connection:
                pooled = await connection.get_raw_connection()
                try:
                    yield pooled.driver_connection
                except BaseException:
                    await connection.invalidate()
                    raise

    async def ping(self) -> None:
        """Return when PostgreSQL answers; UnavailableError when it does not."""
        async with self.transaction() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.InterfaceError,
    # What asyncpg says of a connection that PostgreSQL has ended while its end is still to come.
    asyncpg.exceptions.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)


def is_unavailable(error: BaseException) -> bool:
    """Whether `error` means that PostgreSQL is away (and not that a statement is wrong)."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if isinstance(error, (OperationalError, InterfaceError, DBAPIError)):
        cause = getattr(error.orig, "__cause__", None) or error.orig
        return cause is not None and isinstance(cause, (OSError, TimeoutError, *_AWAY))
    return isinstance(error, (ConnectionError, OSError, TimeoutError, PoolTimeoutError, *_AWAY))
