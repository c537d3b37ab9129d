"""PostgreSQL through SQLAlchemy's asyncio engine and asyncpg."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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


def sqlalchemy_url(url: str) -> str:
    """`postgresql://...` with the driver that SQLAlchemy is to use."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("postgresql", "postgres"):
        raise ValueError("USAGEFLOW_DATABASE_URL must begin with postgresql://")
    return f"postgresql+asyncpg://{rest}"


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
        """
        try:
            async with self.engine.begin() as connection:
                yield connection
        except Exception as error:
            if is_unavailable(error):
                raise UnavailableError(
                    "The database is away; try again", retry_after_s=RETRY_AFTER_S
                ) from error
            raise

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """For one statement that only reads: no BEGIN, no COMMIT; UnavailableError as above."""
        try:
            async with self._alone.connect() as connection:
                yield connection
        except Exception as error:
            if is_unavailable(error):
                raise UnavailableError(
                    "The database is away; try again", retry_after_s=RETRY_AFTER_S
                ) from error
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
