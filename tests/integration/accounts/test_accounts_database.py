"""What the database of accounts refuses, whatever the code above it does."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.accounts.domain import NewKey
from services.accounts.members_servicer import People
from services.accounts.people import Seen
from services.accounts.tables import metadata
from services.kit.auth import Principal
from services.kit.database import Database, TenantKey
from services.kit.migrations import migrate

AUDIT_COLUMNS = "id organization_id mode action target_id key_id request_id time details"


def audit_like(**changed: str) -> str:
    """A statement that adds an entry like those that are there, but for some columns."""
    names = AUDIT_COLUMNS.split()
    columns = {"id": "'aud_' || md5(id)", **changed}
    values = ", ".join(columns.get(name, name) for name in names)
    return f"INSERT INTO audit_log ({', '.join(names)}) SELECT {values} FROM audit_log LIMIT 1"


@pytest.fixture
async def key_id(people: People, tenant: TenantKey) -> str:
    """A revoked key; beside it an owner whose session has ended, and a revoked invitation."""
    accounts = people.accounts
    _, link, _ = await people.signing_in.create_link(tenant.organization_id)
    member, _, token = await people.signing_in.by_link(link, Seen())
    await people.signing_in.end(token)
    owner = Principal("", tenant.organization_id, 1, "test", frozenset(), member_id=member.id)
    invitation, _ = await people.invitations.create(owner, "ada@example.com", "VIEWER")
    await people.invitations.revoke(owner, invitation.id)
    key, _ = await accounts.create_api_key(tenant, NewKey("server", ["track"], None))
    return (await accounts.revoke_api_key(tenant, key.id)).id


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE api_keys SET revoke_time = NULL", "a revoked API key stays revoked"),
        ("UPDATE api_keys SET revoke_time = now()", "a revoked API key stays revoked"),
        ("UPDATE api_keys SET key_hash = sha256('x')", "never changes"),
        ("UPDATE api_keys SET mode = 'live'", "never changes"),
        ("UPDATE api_keys SET id = 'key_' || md5('x')", "never changes"),
        ("UPDATE api_keys SET prefix = 'uf_test_abcd'", "never changes"),
        ("UPDATE api_keys SET create_time = 'epoch'", "never changes"),
        ("UPDATE api_keys SET organization_id = 'org_' || md5('x')", "never changes"),
        ("DELETE FROM api_keys", "never deleted"),
        ("UPDATE audit_log SET key_id = ''", "the audit log is only added to"),
        ("UPDATE audit_log SET details = '{}'", "the audit log is only added to"),
        ("DELETE FROM audit_log", "the audit log is only added to"),
        ("TRUNCATE audit_log", "the audit log is only added to"),
        ("UPDATE audit_heads SET number = number + 2", "grows by one entry"),
        ("UPDATE audit_heads SET number = number - 1", "grows by one entry"),
        ("DELETE FROM audit_heads", "never cut off"),
        ("TRUNCATE audit_heads", "never cut off"),
        (audit_like(mode="'demo'"), "ck_audit_log_mode"),
        (audit_like(action="'created'"), "ck_audit_log_action"),
        (audit_like(details="'[]'"), "ck_audit_log_details"),
        (audit_like(key_id="repeat('k', 256)"), "ck_audit_log_ids"),
        (audit_like(id="'aud_1'"), "ck_audit_log_id"),
        (
            audit_like(organization_id="'org_' || md5('x')"),
            "fk_audit_heads_organization_id_organizations",
        ),
        ("DELETE FROM organizations", "fk_api_keys_organization_id_organizations"),
        ("UPDATE api_keys SET scopes = '{}'", "ck_api_keys_scopes"),
        ("UPDATE api_keys SET scopes = '{owner}'", "ck_api_keys_scopes"),
        ("UPDATE api_keys SET name = repeat('x', 201)", "ck_api_keys_name"),
        (
            "UPDATE organizations SET requests_per_second = 0",
            "ck_organizations_requests_per_second",
        ),
        ("UPDATE organizations SET events_per_second = 0", "ck_organizations_events_per_second"),
        ("UPDATE api_keys SET requests_per_second = -1", "ck_api_keys_requests_per_second"),
        ("UPDATE api_keys SET events_per_second = -1", "ck_api_keys_events_per_second"),
        ("UPDATE api_keys SET allowed_networks = '{10.0.0.1/8}'", "invalid cidr value"),
        (
            "UPDATE api_keys SET allowed_networks = array_fill('::1/128'::cidr, ARRAY[51])",
            "ck_api_keys_allowed_networks",
        ),
        ("UPDATE organizations SET name = ''", "ck_organizations_name"),
        ("UPDATE organizations SET id = 'acme'", "ck_organizations_id"),
        ("UPDATE organizations SET event_past_days = 34", "ck_organizations_event_past_days"),
        (
            "UPDATE organizations SET event_past_days = 401, event_retention_days = 500",
            "ck_organizations_event_past_days",
        ),
        (
            "UPDATE organizations SET event_retention_days = 89",
            "ck_organizations_event_retention_days",
        ),
        (
            "UPDATE organizations SET event_retention_days = 36501",
            "ck_organizations_event_retention_days",
        ),
        (
            "UPDATE organizations SET event_past_days = 200, event_retention_days = 199",
            "ck_organizations_event_kept_days",
        ),
        (
            "INSERT INTO api_keys SELECT 'key_' || md5('x'), organization_id, mode, name, prefix, "
            "key_hash, scopes, create_time FROM api_keys",
            "uq_api_keys_key_hash",
        ),
        (
            "INSERT INTO api_keys SELECT 'key_' || md5('x'), organization_id, 'demo', name, "
            "prefix, sha256('x'), scopes, create_time FROM api_keys",
            "ck_api_keys_mode",
        ),
        (
            "INSERT INTO api_keys SELECT 'key_' || md5('x'), organization_id, mode, name, "
            "prefix, 'plain', scopes, create_time FROM api_keys",
            "ck_api_keys_key_hash",
        ),
        ("UPDATE members SET id = 'mem_' || md5('x')", "identifies a member never changes"),
        ("UPDATE members SET email = 'Ada@example.com'", "ck_members_email"),
        ("UPDATE members SET email = 'ada'", "ck_members_email"),
        ("UPDATE members SET name = ''", "ck_members_name"),
        ("UPDATE members SET role = 'KING'", "last owner"),
        ("UPDATE members SET password_hash = 'secret'", "ck_members_password_hash"),
        (
            "INSERT INTO members SELECT 'mem_' || md5('x'), organization_id, email, name, role, "
            "password_hash, create_time FROM members",
            "uq_members_email",
        ),
        ("UPDATE sign_in_links SET end_time = NULL", "what has ended stays ended"),
        ("UPDATE sign_in_links SET token_hash = sha256('x')", "never changes"),
        ("UPDATE sessions SET end_time = NULL", "what has ended stays ended"),
        ("UPDATE sessions SET expire_time = 'infinity'", "never changes"),
        ("UPDATE sessions SET address = repeat('x', 65)", "ck_sessions_seen"),
        ("UPDATE invitations SET revoke_time = NULL", "stays so"),
    ],
)
async def test_the_database_refuses(
    database: Database, key_id: str, statement: str, why: str
) -> None:
    with pytest.raises(DBAPIError, match=why):
        async with database.transaction() as connection:
            await connection.execute(text(statement))


async def test_a_revoked_key_can_still_be_renamed(database: Database, key_id: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE api_keys SET name = 'old server'"))
        names = (await connection.execute(text("SELECT name FROM api_keys"))).scalars().all()
    assert names == ["old server"]


async def test_the_migrations_make_the_tables_as_declared(database: Database) -> None:
    async with database.engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), metadata)
        )
    assert differences == []


async def test_migrating_again_changes_nothing(database: Database, database_url: str) -> None:
    await migrate(database_url, "services.accounts")
    async with database.transaction() as connection:
        versions = await connection.execute(text("SELECT version_num FROM alembic_version"))
        assert versions.scalars().all() == ["0013"]
