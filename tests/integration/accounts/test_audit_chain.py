"""The chain of the audit log: what was changed, left out or put in is found."""

import asyncio

import pytest
from sqlalchemy import text

from services.accounts import audit_repository
from services.accounts.audit import AuditLog, Verification, entry_hash
from services.accounts.domain import NewKey
from services.accounts.members_servicer import People
from services.kit.audit import audit_event
from services.kit.database import Database, TenantKey
from services.kit.errors import InvalidArgumentError
from services.kit.keys import KEY_MODES
from tests.integration.accounts.conftest import RecordedChanges

ENTRIES = 6


@pytest.fixture
async def audit_log(database: Database, tenant: TenantKey) -> AuditLog:
    """With so many entries of one tenant, in an order that is not that of their times."""
    audit_log = AuditLog(database)
    for number in range(ENTRIES):
        details = {"n": number, "text": "Ünï\u2028\n:,"}
        await audit_log.take([audit_event(tenant, "thing.done", target_id="x", details=details)])
    return audit_log


async def tampered(database: Database, statement: str) -> None:
    """What somebody does who may do everything with the database."""
    async with database.transaction() as connection:
        for trigger in ("keep_audit_log", "chain_audit_log"):
            await connection.execute(text(f"ALTER TABLE audit_log DISABLE TRIGGER {trigger}"))
        await connection.execute(text(statement))


async def test_every_entry_holds_the_hash_of_the_one_before(
    database: Database, audit_log: AuditLog, tenant: TenantKey
) -> None:
    async with database.transaction() as connection:
        entries = await audit_repository.chain_after(connection, tenant, 0, 100)
        head = await audit_repository.head_of(connection, tenant)
    assert [entry.number for entry in entries] == list(range(1, ENTRIES + 1))
    assert entries[0].previous_hash == bytes(32)
    assert [entry.previous_hash for entry in entries[1:]] == [entry.hash for entry in entries[:-1]]
    # The database has worked them out by code of its own.
    assert [entry.hash for entry in entries] == [entry_hash(entry) for entry in entries]
    assert head == (ENTRIES, entries[-1].hash)


async def test_a_chain_that_nobody_touched_is_right_from_any_entry_on(
    audit_log: AuditLog, tenant: TenantKey
) -> None:
    whole = await audit_log.verify(tenant, 0)
    assert (whole.number, whole.head_number, whole.broken_number) == (ENTRIES, ENTRIES, None)
    for after in range(ENTRIES + 1):
        assert await audit_log.verify(tenant, after) == whole
    with pytest.raises(InvalidArgumentError):
        await audit_log.verify(tenant, -1)


async def test_an_empty_chain_is_right(audit_log: AuditLog, tenant: TenantKey) -> None:
    other = TenantKey(tenant.organization_id, "live")
    assert await audit_log.verify(other, 0) == Verification(0, 0, bytes(32))


@pytest.mark.parametrize(
    ("statement", "broken"),
    [
        ("UPDATE audit_log SET key_id = 'key_x' WHERE number = 3", 3),
        ("UPDATE audit_log SET time = time + interval '1 microsecond' WHERE number = 3", 3),
        ("UPDATE audit_log SET details = '{\"n\": 9}' WHERE number = 3", 3),
        ("UPDATE audit_log SET action = 'thing.made', target_id = '' WHERE number = 3", 3),
        ("UPDATE audit_log SET hash = sha256('x') WHERE number = 3", 3),
        ("DELETE FROM audit_log WHERE number = 3", 3),
        ("DELETE FROM audit_log WHERE number = 1", 1),
        (f"DELETE FROM audit_log WHERE number = {ENTRIES}", ENTRIES),
        ("DELETE FROM audit_log", 1),
    ],
)
async def test_what_was_changed_or_left_out_is_found(
    database: Database, audit_log: AuditLog, tenant: TenantKey, statement: str, broken: int
) -> None:
    await tampered(database, statement)
    assert (await audit_log.verify(tenant, 0)).broken_number == broken


async def test_who_writes_a_whole_new_chain_can_not_keep_a_hash_that_was_noted(
    database: Database, audit_log: AuditLog, tenant: TenantKey
) -> None:
    noted = await audit_log.verify(tenant, 0)
    await tampered(
        database,
        f"UPDATE audit_log SET key_id = 'key_x', hash = sha256('x') WHERE number = {noted.number}",
    )
    async with database.transaction() as connection:
        await connection.execute(text("ALTER TABLE audit_heads DISABLE TRIGGER USER"))
        await connection.execute(
            text("UPDATE audit_log a SET hash = audit_hash(a) WHERE number = :n"),
            {"n": noted.number},
        )
        await connection.execute(
            text("UPDATE audit_heads h SET hash = a.hash FROM audit_log a WHERE a.number = :n"),
            {"n": noted.number},
        )
    forged = await audit_log.verify(tenant, 0)
    assert forged.broken_number is None
    assert forged.hash != noted.hash


async def test_what_comes_twice_or_at_once_leaves_one_chain_without_gaps(
    database: Database, tenant: TenantKey
) -> None:
    audit_log = AuditLog(database)
    modes = [TenantKey(tenant.organization_id, mode) for mode in KEY_MODES]
    events = [
        audit_event(modes[number % 2], "thing.done", details={"n": number}) for number in range(20)
    ]
    await asyncio.gather(*(audit_log.take(events[at : at + 10]) for at in (0, 5, 10, 0, 10)))
    for each in modes:
        found = await audit_log.verify(each, 0)
        assert (found.number, found.broken_number) == (10, None)


async def test_changes_of_the_organization_and_entries_of_others_do_not_wait_for_each_other(
    people: People, database: Database, changes: RecordedChanges, tenant: TenantKey
) -> None:
    """An entry locks its chain, a change the organization: in either order, without deadlock."""
    from services.accounts.domain import OrganizationChange

    audit_log = AuditLog(database)

    async def change(number: int) -> None:
        renamed = OrganizationChange(name=f"Acme {number}")
        await people.accounts.update_organization(tenant.organization_id, renamed)

    async def make_key(number: int) -> None:
        await people.accounts.create_api_key(tenant, NewKey(str(number), ["read"], None))

    async def tell(number: int) -> None:
        await audit_log.take([audit_event(tenant, "thing.done", details={"n": number})])

    await asyncio.gather(
        *(work(number) for number in range(8) for work in (change, make_key, tell))
    )
    assert (await audit_log.verify(tenant, 0)).broken_number is None
