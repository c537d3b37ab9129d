"""How members get in: links that work once, sessions, who they stand for."""

import asyncio
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.event import listen

from services.accounts.audit import AuditLog
from services.accounts.audit_repository import AuditFilter
from services.accounts.keys import OwnKeys
from services.accounts.members_servicer import People
from services.accounts.people import SESSIONS_PER_MEMBER_MAX, Seen
from services.accounts.signing_in import OWNER_EMAIL_DEFAULT, SigningIn
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import InvalidArgumentError, NotFoundError, UnauthenticatedError
from services.kit.keys import SESSION_START, SIGN_IN_LINK_START, make_token
from services.kit.signatures import Signatures
from tests.integration.accounts.conftest import SIGNATURES, RecordedChanges

HERE = Seen("192.0.2.1", "Firefox")


@pytest.fixture
async def link(signing_in: SigningIn, tenant: TenantKey) -> str:
    """A link's token, for the owner."""
    return (await signing_in.create_link(tenant.organization_id))[1]


async def later(database: Database, table: str, by: timedelta) -> None:
    """What is in the table is so much older now."""
    async with database.transaction() as connection:
        # The trigger keeps these times; a test may turn the clock all the same.
        await connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER keep_ended"))
        columns = ["create_time", "expire_time"] + ["use_time"] * (table == "sessions")
        moved = ", ".join(f"{column} = {column} - CAST(:by AS interval)" for column in columns)
        await connection.execute(text(f"UPDATE {table} SET {moved}"), {"by": by})
        await connection.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER keep_ended"))


async def test_the_first_link_of_an_organization_makes_its_owner(
    signing_in: SigningIn, tenant: TenantKey
) -> None:
    owner, token, expire_time = await signing_in.create_link(tenant.organization_id)
    assert (owner.role, owner.email) == ("OWNER", OWNER_EMAIL_DEFAULT)
    assert token.startswith(SIGN_IN_LINK_START)
    assert timedelta(hours=23) < expire_time - clock.now() <= timedelta(hours=24)
    again, _, _ = await signing_in.create_link(tenant.organization_id)
    assert again.id == owner.id


async def test_many_first_links_at_once_make_one_owner(
    signing_in: SigningIn, tenant: TenantKey
) -> None:
    made = await asyncio.gather(*(signing_in.create_link(tenant.organization_id) for _ in range(4)))
    assert len({member.id for member, _, _ in made}) == 1


async def test_a_link_signs_in_once(signing_in: SigningIn, link: str) -> None:
    member, session, token = await signing_in.by_link(link, HERE)
    resolved = await signing_in.resolve(token)
    assert (resolved.member.id, resolved.session.id) == (member.id, session.id)
    assert (session.address, session.user_agent) == ("192.0.2.1", "Firefox")
    with pytest.raises(UnauthenticatedError):
        await signing_in.by_link(link, HERE)


async def test_of_many_who_use_a_link_at_once_one_gets_in(signing_in: SigningIn, link: str) -> None:
    tries = [signing_in.by_link(link, HERE) for _ in range(4)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(each) for each in outcomes].count(tuple) == 1
    assert [type(each) for each in outcomes].count(UnauthenticatedError) == 3


async def test_a_newer_link_ends_the_older_one(
    signing_in: SigningIn, tenant: TenantKey, link: str
) -> None:
    await signing_in.create_link(tenant.organization_id)
    with pytest.raises(UnauthenticatedError):
        await signing_in.by_link(link, HERE)


async def test_an_old_link_is_of_no_use(
    database: Database, signing_in: SigningIn, link: str
) -> None:
    await later(database, "sign_in_links", timedelta(hours=24))
    with pytest.raises(UnauthenticatedError) as refused:
        await signing_in.by_link(link, HERE)
    assert refused.value.reason == "invalid_link"


@pytest.mark.parametrize(
    "token", ["", "x", make_token(SIGN_IN_LINK_START)], ids=["nothing", "no token", "nobody's"]
)
async def test_what_is_no_link_is_refused_as_a_used_one_is(
    signing_in: SigningIn, link: str, token: str
) -> None:
    await signing_in.by_link(link, HERE)
    messages = set()
    for wrong in (token, link):
        with pytest.raises(UnauthenticatedError) as refused:
            await signing_in.by_link(wrong, HERE)
        messages.add(refused.value.message)
    assert len(messages) == 1


async def test_links_are_for_members_who_are_there(
    signing_in: SigningIn, tenant: TenantKey
) -> None:
    for organization_id, email in (
        (tenant.organization_id, "nobody@example.com"),
        ("org_" + "0" * 32, ""),
        ("acme", ""),
    ):
        with pytest.raises(NotFoundError):
            await signing_in.create_link(organization_id, email)
    with pytest.raises(InvalidArgumentError) as refused:
        await signing_in.create_link(tenant.organization_id, default_email="nobody")
    assert [problem.field for problem in refused.value.problems] == ["email"]


async def test_a_session_that_has_ended_stands_for_nobody(
    signing_in: SigningIn, changes: RecordedChanges, link: str
) -> None:
    member, _, token = await signing_in.by_link(link, HERE)
    await signing_in.end(token)
    await signing_in.end(token)
    assert changes.member_ids == [member.id]
    with pytest.raises(UnauthenticatedError) as refused:
        await signing_in.resolve(token)
    assert refused.value.reason == "invalid_session"


async def test_a_session_has_ended_although_nobody_can_be_told(
    signing_in: SigningIn, changes: RecordedChanges, link: str
) -> None:
    _, _, token = await signing_in.by_link(link, HERE)
    changes.failure = ConnectionError("NATS is away")
    await signing_in.end(token)
    with pytest.raises(UnauthenticatedError):
        await signing_in.resolve(token)


@pytest.mark.parametrize(
    "token", ["", "x", make_token(SESSION_START)], ids=["nothing", "no token", "nobody's"]
)
async def test_what_is_no_session_stands_for_nobody(signing_in: SigningIn, token: str) -> None:
    with pytest.raises(UnauthenticatedError):
        await signing_in.resolve(token)


async def test_what_we_did_not_sign_never_reaches_the_database(
    people: People, tenant: TenantKey, database: Database, link: str
) -> None:
    _, _, session = await people.signing_in.by_link(link, HERE)
    made, portal_link = await people.portals.create(tenant, "ada", None, by="key_0")
    asked: list[str] = []
    listen(database.engine.sync_engine, "before_cursor_execute", lambda *of: asked.append(of[2]))
    keys = OwnKeys(people.accounts, people.signing_in, people.portals, SIGNATURES)
    rotated = Signatures(SecretStr("another internal token of 32 characters or more"))
    for unsigned in (
        session,
        f"{session}.test",
        rotated.session(session, "test"),
        SIGNATURES.session(portal_link, "test"),
        portal_link,
        rotated.portal_link(portal_link, made.expire_time),
        SIGNATURES.portal_link(session, made.expire_time),
    ):
        with pytest.raises(UnauthenticatedError) as refused:
            await keys.resolve(unsigned)
        assert refused.value.reason in ("invalid_session", "invalid_portal_link")
    assert asked == []
    await keys.resolve(SIGNATURES.session(session, "test"))
    assert asked


async def test_a_session_that_is_not_used_ends_after_a_week(
    database: Database, signing_in: SigningIn, link: str
) -> None:
    _, _, token = await signing_in.by_link(link, HERE)
    for _ in range(2):  # being used keeps it
        await later(database, "sessions", timedelta(days=6))
        await signing_in.resolve(token)
    await later(database, "sessions", timedelta(days=7))
    with pytest.raises(UnauthenticatedError):
        await signing_in.resolve(token)


async def test_a_session_ends_after_a_month_used_or_not(
    database: Database, signing_in: SigningIn, link: str
) -> None:
    _, _, token = await signing_in.by_link(link, HERE)
    for _ in range(5):
        await later(database, "sessions", timedelta(days=5))
        await signing_in.resolve(token)
    await later(database, "sessions", timedelta(days=5))
    with pytest.raises(UnauthenticatedError):
        await signing_in.resolve(token)


async def test_members_see_and_end_their_own_sessions(
    signing_in: SigningIn, tenant: TenantKey
) -> None:
    tokens = []
    for _ in range(3):
        _, link, _ = await signing_in.create_link(tenant.organization_id)
        member, _, token = await signing_in.by_link(link, HERE)
        tokens.append(token)
    first, cursor = await signing_in.list_sessions(member.id, 2, "")
    rest, end = await signing_in.list_sessions(member.id, 2, cursor)
    assert (len(first), len(rest), end) == (2, 1, "")
    await signing_in.revoke(member.id, rest[0].id)
    await signing_in.revoke(member.id, rest[0].id)
    assert (await signing_in.list_sessions(member.id, 0, ""))[0] == first
    with pytest.raises(UnauthenticatedError):
        await signing_in.resolve(tokens[0])
    for member_id, session_id in (
        ("mem_" + "0" * 32, first[0].id),
        (member.id, "ses_" + "0" * 32),
        (member.id, "x"),
    ):
        with pytest.raises(NotFoundError):
            await signing_in.revoke(member_id, session_id)


async def test_a_member_has_so_many_sessions_and_no_more(
    database: Database, signing_in: SigningIn, tenant: TenantKey
) -> None:
    member, _, _ = await signing_in.create_link(tenant.organization_id)
    tokens = []
    for _ in range(SESSIONS_PER_MEMBER_MAX + 1):
        async with database.transaction() as connection:
            tokens.append((await signing_in.begin_session(connection, member, HERE, "link"))[2])
    with pytest.raises(UnauthenticatedError):
        await signing_in.resolve(tokens[0])
    await signing_in.resolve(tokens[1])


async def test_signing_in_is_in_the_audit_log_of_both_modes_and_tells_no_token(
    database: Database, signing_in: SigningIn, tenant: TenantKey, link: str
) -> None:
    member, session, token = await signing_in.by_link(link, HERE)
    for mode in ("live", "test"):
        events, _ = await AuditLog(database).list(
            TenantKey(tenant.organization_id, mode), AuditFilter(group="member."), 0, ""
        )
        signed_in, created = (entry.event for entry in events)
        assert (signed_in.action, created.action) == ("member.signed_in", "member.created")
        assert signed_in.key_id == signed_in.target_id == member.id
        assert session.id in signed_in.details_json
        assert token not in signed_in.details_json + created.details_json


async def test_no_token_is_in_the_database(
    database: Database, signing_in: SigningIn, link: str
) -> None:
    _, _, token = await signing_in.by_link(link, HERE)
    async with database.transaction() as connection:
        for table in ("sign_in_links", "sessions", "members"):
            rows = (await connection.execute(text(f"SELECT {table}::text FROM {table}"))).scalars()
            written = "".join(rows)
            assert written
            assert token[10:] not in written
            assert link[10:] not in written


async def test_an_organization_s_owner_is_a_stranger_to_another(
    people: People, signing_in: SigningIn, tenant: TenantKey, link: str
) -> None:
    member, _, _ = await signing_in.by_link(link, HERE)
    other = await people.accounts.create_organization("Other")
    with pytest.raises(NotFoundError):
        await people.members.get(other.id, member.id)
    theirs, _, _ = await signing_in.create_link(other.id)
    assert theirs.id != member.id
