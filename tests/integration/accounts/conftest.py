"""accounts on a real database."""

from collections.abc import AsyncIterator

import pytest
from argon2 import PasswordHasher
from pydantic import SecretStr

from cli.embedded import EmbeddedPostgres
from services.accounts.app import people_of
from services.accounts.members_servicer import People
from services.accounts.passwords import Passwords
from services.accounts.service import Accounts
from services.accounts.signing_in import SigningIn
from services.kit.database import Database, TenantKey
from services.kit.signatures import Signatures
from tests.conftest import migrated_database

PEPPER = b"a pepper of more than 32 characters"
INTERNAL_TOKEN = SecretStr("t" * 32)
SIGNATURES = Signatures(INTERNAL_TOKEN)


class RecordedChanges:
    """A Changes that keeps what it was told, and fails when `failure` is set."""

    def __init__(self) -> None:
        self.key_ids: list[str] = []
        self.organization_ids: list[str] = []
        self.member_ids: list[str] = []
        self.portal_link_ids: list[str] = []
        self.failure: Exception | None = None

    async def key_changed(self, key_id: str) -> None:
        """Keep the id or fail."""
        if self.failure is not None:
            raise self.failure
        self.key_ids.append(key_id)

    async def organization_changed(self, organization_id: str) -> None:
        """Keep the id or fail."""
        if self.failure is not None:
            raise self.failure
        self.organization_ids.append(organization_id)

    async def member_changed(self, member_id: str) -> None:
        """Keep the id or fail."""
        if self.failure is not None:
            raise self.failure
        self.member_ids.append(member_id)

    async def portal_link_changed(self, link_id: str) -> None:
        """Keep the id or fail."""
        if self.failure is not None:
            raise self.failure
        self.portal_link_ids.append(link_id)


@pytest.fixture
async def database_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of accounts's migrated, empty database."""
    async with migrated_database(postgres, "services.accounts") as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The migrated database of accounts."""
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
def changes() -> RecordedChanges:
    """What accounts told other processes."""
    return RecordedChanges()


@pytest.fixture
def people(database: Database, changes: RecordedChanges) -> People:
    """All use cases; passwords cost next to nothing here."""
    return people_of(database, PEPPER, changes, quick_passwords())


@pytest.fixture
def accounts(people: People) -> Accounts:
    """The use cases of organizations and keys."""
    return people.accounts


@pytest.fixture
def signing_in(people: People) -> SigningIn:
    """How members get in."""
    return people.signing_in


def quick_passwords() -> Passwords:
    """argon2 with the least that it takes."""
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
async def tenant(accounts: Accounts) -> TenantKey:
    """Test mode of an organization."""
    organization = await accounts.create_organization("Acme")
    return TenantKey(organization.id, "test")
