"""Links to the customer portal: whose they are, and how they end."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.accounts import portal
from services.accounts.audit import AuditLog
from services.accounts.audit_repository import AuditFilter
from services.accounts.keys import OwnKeys
from services.accounts.members_servicer import People
from services.accounts.portal import Portals
from services.accounts.service import Accounts
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import (
    InvalidArgumentError,
    NotFoundError,
    OverloadedError,
    UnauthenticatedError,
)
from services.kit.keys import PORTAL_START, make_token
from tests.integration.accounts.conftest import SIGNATURES, RecordedChanges

BY = "key_0"


@pytest.fixture
def portals(people: People) -> Portals:
    """The use cases."""
    return people.portals


async def older(database: Database, by: timedelta) -> None:
    """All links are so much older now."""
    async with database.transaction() as connection:
        # The trigger keeps these times; a test may turn the clock all the same.
        await connection.execute(text("ALTER TABLE portal_links DISABLE TRIGGER keep_portal_links"))
        await connection.execute(
            text(
                "UPDATE portal_links SET create_time = create_time - CAST(:by AS interval),"
                " expire_time = expire_time - CAST(:by AS interval)"
            ),
            {"by": by},
        )
        await connection.execute(text("ALTER TABLE portal_links ENABLE TRIGGER keep_portal_links"))


async def test_a_link_stands_for_one_customer_and_may_only_read(
    people: People, tenant: TenantKey
) -> None:
    link, token = await people.portals.create(tenant, "ada/é", None, by=BY)
    assert link.expire_time - link.create_time == timedelta(days=1)
    keys = OwnKeys(people.accounts, people.signing_in, people.portals, SIGNATURES)
    principal = await keys.resolve(SIGNATURES.portal_link(token, link.expire_time))
    assert (principal.tenant, principal.customer_id) == (tenant, "ada/é")
    assert (principal.scopes, principal.actor_id) == (frozenset({"read"}), link.id)
    assert (principal.member_id, principal.key_id, principal.role) == ("", "", "")
    assert await people.portals.current(principal) == portal.Portal(
        "Acme", "ada/é", link.expire_time
    )


async def test_a_revoked_link_ends_at_once_stays_so_and_everybody_is_told(
    portals: Portals, tenant: TenantKey, changes: RecordedChanges, database: Database
) -> None:
    link, token = await portals.create(tenant, "ada", None, by=BY)
    await portals.resolve(token)
    revoked = await portals.revoke(tenant, link.id, by=BY)
    assert await portals.revoke(tenant, link.id, by=BY) == revoked
    assert set(changes.portal_link_ids) == {link.id}
    with pytest.raises(UnauthenticatedError) as refused:
        await portals.resolve(token)
    assert refused.value.reason == "invalid_portal_link"
    entries, _ = await AuditLog(database).list(tenant, AuditFilter(target_id=link.id), 0, "")
    assert [entry.event.action for entry in entries] == [
        "portal_link.revoked",
        "portal_link.created",
    ]
    for change in ("revoke_time = NULL", "customer_id = 'bob'"):
        with pytest.raises(DBAPIError):
            async with database.transaction() as connection:
                await connection.execute(text(f"UPDATE portal_links SET {change}"))


async def test_a_link_ends_when_it_was_to(
    portals: Portals, tenant: TenantKey, database: Database
) -> None:
    _, token = await portals.create(tenant, "ada", timedelta(hours=1), by=BY)
    await older(database, timedelta(minutes=59))
    assert (await portals.resolve(token)).link.expire_time > clock.now()
    await older(database, timedelta(minutes=1))
    for wrong in (token, make_token(PORTAL_START), "ufp_x", ""):
        with pytest.raises(UnauthenticatedError):
            await portals.resolve(wrong)


async def test_what_is_wrong_is_named_all_at_once(portals: Portals, tenant: TenantKey) -> None:
    for customer_id, life in (("", timedelta(days=31)), ("a\n", timedelta(seconds=59))):
        with pytest.raises(InvalidArgumentError) as refused:
            await portals.create(tenant, customer_id, life, by=BY)
        assert [each.field for each in refused.value.problems] == ["customerId", "expiresInSeconds"]


async def test_links_of_another_organization_mode_or_customer_are_not_seen(
    portals: Portals, accounts: Accounts, tenant: TenantKey
) -> None:
    link, _ = await portals.create(tenant, "ada", None, by=BY)
    other = TenantKey((await accounts.create_organization("Other")).id, "test")
    for stranger in (other, TenantKey(tenant.organization_id, "live")):
        assert await portals.list(stranger, "", 0, "") == ([], "")
        with pytest.raises(NotFoundError):
            await portals.revoke(stranger, link.id, by=BY)
    await portals.create(tenant, "bob", None, by=BY)
    assert await portals.list(tenant, "ada", 0, "") == ([link], "")
    newest, token = await portals.list(tenant, "", 1, "")
    oldest, _ = await portals.list(tenant, "", 1, token)
    assert [each.customer_id for each in newest + oldest] == ["bob", "ada"]


async def test_many_at_once_stay_within_the_bound_and_old_ones_go(
    portals: Portals, tenant: TenantKey, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portal, "WORKING_MAX", 3)
    made = await asyncio.gather(
        *(portals.create(tenant, "ada", None, by=BY) for _ in range(6)), return_exceptions=True
    )
    refused = [each for each in made if isinstance(each, BaseException)]
    assert [type(each) for each in refused] == [OverloadedError] * 3
    await older(database, timedelta(days=92))
    kept, _ = await portals.create(tenant, "ada", None, by=BY)
    assert await portals.list(tenant, "", 0, "") == ([kept], "")
