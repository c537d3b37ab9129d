"""aggregator on a real database."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import pytest
from usageflow.events.v1.events_pb2 import UsageEvent

from cli.embedded import EmbeddedPostgres
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.token_wait import TokenWait
from services.aggregator.usage_service import UsageAnswers
from services.kit.database import Database, TenantKey
from services.kit.errors import UnavailableError
from tests.conftest import migrated_database
from tests.integration.aggregator.sending import new_tenant, utc

# Long enough to outlast a busy machine, short enough for a test that waits it out.
TOKEN_WAIT_S = 2.0


class SetWatermark:
    """A WatermarkSource that tells what a test has set; None: ingest is away."""

    def __init__(self) -> None:
        self.now: datetime | None = utc("2026-03-31T12:00")
        self._last: datetime | None = None

    @property
    def last(self) -> datetime | None:
        """The newest that was told."""
        return self._last

    async def ask(self) -> datetime:
        """What is set."""
        if self.now is None:
            raise UnavailableError("ingest is away")
        self._last = self.now
        return self.now

    async def ask_anew(self) -> datetime:
        """What is set."""
        return await self.ask()


class NoReplay:
    """A ReplaySource that is away."""

    async def replay(
        self, tenant: TenantKey, metric: str, customer_id: str, start: datetime, end: datetime
    ) -> AsyncIterator[Sequence[UsageEvent]]:
        """UnavailableError."""
        raise UnavailableError("ingest is away")
        yield []


@pytest.fixture
async def database_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of aggregator's migrated, empty database."""
    async with migrated_database(postgres, "services.aggregator") as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The migrated database of aggregator."""
    database = Database(database_url, pool_size=10)
    yield database
    await database.close()


@pytest.fixture
def told() -> list[str]:
    """One entry for each commit that had customers to tell of."""
    return []


@pytest.fixture
def waits(database: Database, watermark: SetWatermark) -> TokenWait:
    """Where one replica's questions wait for what their token stands for."""
    return TokenWait(database, watermark, TOKEN_WAIT_S)


@pytest.fixture
def folder(database: Database, told: list[str], waits: TokenWait) -> Folder:
    """One replica's fold."""
    return Folder(database, lambda: told.append("told"), batches_counted=waits.counted)


@pytest.fixture
def metrics(database: Database) -> Metrics:
    """The use cases of metrics."""
    return Metrics(database)


@pytest.fixture
def watermark() -> SetWatermark:
    """What ingest says."""
    return SetWatermark()


@pytest.fixture
def answers(database: Database, watermark: SetWatermark, waits: TokenWait) -> UsageAnswers:
    """The use cases of usage."""
    return UsageAnswers(database, watermark, waits, NoReplay(), watermark_recent_s=0.0)


@pytest.fixture
def tenant() -> TenantKey:
    """Live mode of an organization."""
    return new_tenant()
