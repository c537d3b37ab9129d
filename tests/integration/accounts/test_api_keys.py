"""API keys from their making to their end, on a real database."""

import asyncio
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text

from services.accounts.domain import KeyChange, KeyLimits, NewKey
from services.accounts.service import Accounts
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import (
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
    UnauthenticatedError,
    UnavailableError,
)
from services.kit.keys import make_key
from tests.integration.accounts.conftest import RecordedChanges


def new_key(
    name: str = "server", scopes: tuple[str, ...] = ("track",), expire_time: datetime | None = None
) -> NewKey:
    return NewKey(name, scopes, expire_time)


async def test_a_new_key_resolves_to_its_organization_mode_and_scopes(
    accounts: Accounts, tenant: TenantKey
) -> None:
    key, secret = await accounts.create_api_key(tenant, new_key(scopes=("admin", "track")))
    resolved = (await accounts.resolve_api_key(secret)).key
    assert resolved == key
    assert (resolved.organization_id, resolved.mode) == tenant
    assert resolved.scopes == ("track", "admin")
    assert resolved.prefix == secret[:12]


async def test_the_key_itself_is_stored_nowhere(
    accounts: Accounts, tenant: TenantKey, database: Database
) -> None:
    _, secret = await accounts.create_api_key(tenant, new_key())
    async with database.transaction() as connection:
        rows = (await connection.execute(text("SELECT api_keys::text FROM api_keys"))).scalars()
        stored = "\n".join(rows)
    assert stored
    assert secret not in stored
    assert secret.encode().hex() not in stored
    assert secret[12:] not in stored


async def test_wrong_revoked_and_expired_keys_are_refused_alike(
    accounts: Accounts, tenant: TenantKey, database: Database
) -> None:
    revoked, revoked_secret = await accounts.create_api_key(tenant, new_key())
    await accounts.revoke_api_key(tenant, revoked.id)
    _, expired_secret = await accounts.create_api_key(
        tenant, new_key(expire_time=clock.now() + timedelta(days=1))
    )
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE api_keys SET expire_time = now() WHERE expire_time IS NOT NULL")
        )
    refusals = set()
    for secret in (make_key("test"), "uf_test_mistyped", "", revoked_secret, expired_secret):
        with pytest.raises(UnauthenticatedError) as refused:
            await accounts.resolve_api_key(secret)
        refusals.add((refused.value.message, refused.value.reason))
    assert refusals == {("Invalid API key", "invalid_api_key")}


async def test_a_mistyped_key_is_refused_without_a_look_up(accounts: Accounts) -> None:
    """With no database at all the checksum still answers; a well-formed key needs the database."""
    without_database = Accounts(
        Database("postgresql://nobody@127.0.0.1:1/none"), b"p" * 32, RecordedChanges()
    )
    good = make_key("live")
    mistyped = good[:-1] + ("a" if good[-1] != "a" else "b")
    with pytest.raises(UnauthenticatedError):
        await without_database.resolve_api_key(mistyped)
    with pytest.raises(UnavailableError):
        await without_database.resolve_api_key(good)


async def test_another_pepper_finds_no_key(
    accounts: Accounts, tenant: TenantKey, database: Database, changes: RecordedChanges
) -> None:
    _, secret = await accounts.create_api_key(tenant, new_key())
    other = Accounts(database, b"another pepper of 32 characters or so", changes)
    with pytest.raises(UnauthenticatedError):
        await other.resolve_api_key(secret)


async def test_revoking_tells_every_process_after_the_commit(
    accounts: Accounts, tenant: TenantKey, changes: RecordedChanges
) -> None:
    key, _ = await accounts.create_api_key(tenant, new_key())
    revoked = await accounts.revoke_api_key(tenant, key.id)
    assert revoked.revoke_time is not None
    assert changes.key_ids == [key.id]


async def test_revoking_twice_changes_nothing(accounts: Accounts, tenant: TenantKey) -> None:
    key, _ = await accounts.create_api_key(tenant, new_key())
    first = await accounts.revoke_api_key(tenant, key.id)
    assert await accounts.revoke_api_key(tenant, key.id) == first


async def test_a_key_is_revoked_even_when_nobody_can_be_told(
    accounts: Accounts, tenant: TenantKey, changes: RecordedChanges
) -> None:
    key, secret = await accounts.create_api_key(tenant, new_key())
    changes.failure = UnavailableError("NATS is away")
    await accounts.revoke_api_key(tenant, key.id)
    with pytest.raises(UnauthenticatedError):
        await accounts.resolve_api_key(secret)


async def test_many_revoking_at_once_agree_on_the_time(
    accounts: Accounts, tenant: TenantKey
) -> None:
    key, _ = await accounts.create_api_key(tenant, new_key())
    answers = await asyncio.gather(*(accounts.revoke_api_key(tenant, key.id) for _ in range(8)))
    assert len({answer.revoke_time for answer in answers}) == 1


async def test_keys_of_another_organization_or_mode_are_not_there(
    accounts: Accounts, tenant: TenantKey
) -> None:
    other = TenantKey((await accounts.create_organization("Other")).id, "test")
    live = TenantKey(tenant.organization_id, "live")
    key, secret = await accounts.create_api_key(tenant, new_key())
    for stranger in (other, live):
        assert await accounts.list_api_keys(stranger, 0, "") == ([], "")
        with pytest.raises(NotFoundError):
            await accounts.revoke_api_key(stranger, key.id)
    assert (await accounts.resolve_api_key(secret)).key == key


async def test_pages_give_every_key_once_newest_first(
    accounts: Accounts, tenant: TenantKey
) -> None:
    made = [(await accounts.create_api_key(tenant, new_key(f"{n}")))[0].id for n in range(5)]
    seen: list[str] = []
    token = ""
    for _ in range(3):
        keys, token = await accounts.list_api_keys(tenant, 2, token)
        seen.extend(key.id for key in keys)
    assert seen == sorted(made, reverse=True)
    assert token == ""


async def test_all_that_is_wrong_with_a_new_key_is_told_at_once(
    accounts: Accounts, tenant: TenantKey
) -> None:
    wrong = NewKey("x" * 201, [], clock.now() - timedelta(seconds=1))
    with pytest.raises(InvalidArgumentError) as refused:
        await accounts.create_api_key(TenantKey(tenant.organization_id, ""), wrong)
    fields = {problem.field for problem in refused.value.problems}
    assert fields == {"name", "mode", "scopes", "expiresAt"}


@pytest.mark.parametrize("organization_id", ["", "org_", "org_" + "0" * 32, "org_\x00", "x" * 999])
async def test_no_key_is_made_for_an_unknown_organization(
    accounts: Accounts, organization_id: str
) -> None:
    with pytest.raises(NotFoundError):
        await accounts.create_api_key(TenantKey(organization_id, "test"), new_key())


@pytest.mark.parametrize("key_id", ["", "key_", "key_" + "0" * 32, "key_\x00", "org_" + "0" * 32])
async def test_there_is_nothing_to_revoke_under_an_unknown_id(
    accounts: Accounts, tenant: TenantKey, key_id: str
) -> None:
    with pytest.raises(NotFoundError):
        await accounts.revoke_api_key(tenant, key_id)


@pytest.mark.parametrize("token", ["x", "WyIAIl0", "WyJrZXlfXHUwMDAwIl0", "W10"])
async def test_a_made_up_page_token_is_refused(
    accounts: Accounts, tenant: TenantKey, token: str
) -> None:
    with pytest.raises(InvalidArgumentError):
        await accounts.list_api_keys(tenant, 0, token)


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "a\x00b", "a\nb"])
async def test_an_organization_needs_a_sane_name(accounts: Accounts, name: str) -> None:
    with pytest.raises(InvalidArgumentError):
        await accounts.create_organization(name)


async def test_logs_never_show_a_key(
    accounts: Accounts, tenant: TenantKey, capsys: pytest.CaptureFixture[str]
) -> None:
    key, secret = await accounts.create_api_key(tenant, new_key())
    await accounts.resolve_api_key(secret)
    await accounts.revoke_api_key(tenant, key.id)
    with pytest.raises(UnauthenticatedError):
        await accounts.resolve_api_key(secret)
    output = "".join(capsys.readouterr())
    assert key.id in output
    assert secret[12:] not in output


async def test_when_a_key_was_used_is_written_once_a_minute(
    accounts: Accounts, tenant: TenantKey, database: Database
) -> None:
    key, secret = await accounts.create_api_key(tenant, new_key())

    async def used() -> datetime | None:
        [listed] = (await accounts.list_api_keys(tenant, 0, ""))[0]
        assert listed.id == key.id
        return listed.use_time

    assert await used() is None
    await accounts.resolve_api_key(secret)
    first = await used()
    assert first is not None
    await accounts.resolve_api_key(secret)
    assert await used() == first
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE api_keys SET use_time = use_time - interval '61 seconds'")
        )
    await accounts.resolve_api_key(secret)
    again = await used()
    assert again is not None
    assert again >= first


async def test_a_rotated_key_works_beside_its_successor_for_a_while(
    accounts: Accounts, tenant: TenantKey, changes: RecordedChanges
) -> None:
    old, old_secret = await accounts.create_api_key(tenant, new_key(scopes=("read", "track")))
    key, secret, ending = await accounts.rotate_api_key(tenant, old.id, None)
    assert (key.name, key.scopes, key.mode) == (old.name, old.scopes, old.mode)
    assert key.expire_time is None
    assert secret != old_secret
    for each in (old_secret, secret):
        await accounts.resolve_api_key(each)
    assert ending.successor_id == key.id
    assert ending.expire_time is not None
    assert timedelta(hours=23) < ending.expire_time - clock.now() <= timedelta(hours=24)
    # Who remembers the old one has to learn when it ends.
    assert changes.key_ids == [old.id]
    with pytest.raises(PreconditionError):
        await accounts.rotate_api_key(tenant, old.id, None)


async def test_a_key_can_be_rotated_without_overlap(accounts: Accounts, tenant: TenantKey) -> None:
    old, old_secret = await accounts.create_api_key(tenant, new_key())
    _, secret, _ = await accounts.rotate_api_key(tenant, old.id, timedelta(0))
    await accounts.resolve_api_key(secret)
    with pytest.raises(UnauthenticatedError):
        await accounts.resolve_api_key(old_secret)


async def test_rotating_never_makes_a_key_live_longer(
    accounts: Accounts, tenant: TenantKey
) -> None:
    soon = clock.now() + timedelta(hours=1)
    old, _ = await accounts.create_api_key(tenant, new_key(expire_time=soon))
    key, _, ending = await accounts.rotate_api_key(tenant, old.id, timedelta(days=30))
    assert ending.expire_time == key.expire_time == soon


async def test_only_a_key_of_ones_own_that_works_is_rotated(
    accounts: Accounts, tenant: TenantKey
) -> None:
    key, _ = await accounts.create_api_key(tenant, new_key())
    other = TenantKey(tenant.organization_id, "live")
    for whose, key_id in ((other, key.id), (tenant, "key_" + "0" * 32), (tenant, "x")):
        with pytest.raises(NotFoundError):
            await accounts.rotate_api_key(whose, key_id, None)
    for overlap in (timedelta(seconds=-1), timedelta(days=31)):
        with pytest.raises(InvalidArgumentError) as refused:
            await accounts.rotate_api_key(tenant, key.id, overlap)
        assert [each.field for each in refused.value.problems] == ["overlapSeconds"]
    await accounts.revoke_api_key(tenant, key.id)
    with pytest.raises(PreconditionError):
        await accounts.rotate_api_key(tenant, key.id, None)


async def test_a_key_is_changed_in_what_may_change_and_everybody_is_told(
    accounts: Accounts, tenant: TenantKey, changes: RecordedChanges
) -> None:
    key, secret = await accounts.create_api_key(tenant, new_key())
    wanted = KeyChange(networks=["10.0.0.0/8", "2001:DB8::1", "10.0.0.0/8"], requests_per_second=5)
    changed = await accounts.update_api_key(tenant, key.id, wanted, by_key="key_0")
    assert changed.limits == KeyLimits(("10.0.0.0/8", "2001:db8::1/128"), 5, 0)
    assert (await accounts.resolve_api_key(secret)).key.limits == changed.limits
    assert changes.key_ids[-1] == key.id
    successor, _secret, _old = await accounts.rotate_api_key(tenant, key.id, None)
    assert successor.limits == changed.limits
    opened = await accounts.update_api_key(tenant, key.id, KeyChange(name="n", networks=[]))
    assert (opened.name, opened.limits) == ("n", KeyLimits((), 5, 0))


@pytest.mark.parametrize(
    "networks",
    [["10.0.0.1/8"], ["10.0.0.0/33"], ["example.com"], [""], ["fe80::1%eth0"], ["10.0.0.0/8"] * 51],
)
async def test_what_is_no_network_is_refused(
    accounts: Accounts, tenant: TenantKey, networks: list[str]
) -> None:
    new = NewKey("n", ("read",), None, KeyLimits(networks, -1, 10_000_001))
    with pytest.raises(InvalidArgumentError) as caught:
        await accounts.create_api_key(tenant, new)
    fields = [problem.field for problem in caught.value.problems]
    assert fields == ["allowedNetworks", "requestsPerSecond", "eventsPerSecond"]


async def test_the_key_of_another_organization_can_not_be_changed(
    accounts: Accounts, tenant: TenantKey
) -> None:
    key, _secret = await accounts.create_api_key(tenant, new_key())
    elsewhere = TenantKey((await accounts.create_organization("other")).id, tenant.mode)
    for stranger in (elsewhere, TenantKey(tenant.organization_id, "live")):
        with pytest.raises(NotFoundError):
            await accounts.update_api_key(stranger, key.id, KeyChange(name="mine"))
