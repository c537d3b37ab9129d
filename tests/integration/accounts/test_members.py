"""Members: invitations, roles, passwords, and that an organization keeps an owner."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.accounts.attempts import BY_ADDRESS, BY_EMAIL, FORGOTTEN_AFTER
from services.accounts.audit import AuditLog
from services.accounts.audit_repository import AuditFilter
from services.accounts.members import MemberChange
from services.accounts.members_servicer import People
from services.accounts.people import Member, Seen
from services.kit.auth import Principal
from services.kit.database import Database, TenantKey
from services.kit.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from services.kit.keys import INVITATION_START, make_token
from tests.integration.accounts.conftest import RecordedChanges

HERE = Seen("192.0.2.1", "Firefox")
PASSWORD = "correct horse battery"


def principal(member: Member, session_id: str = "") -> Principal:
    """The member as a caller."""
    return Principal(
        key_id="",
        organization_id=member.organization_id,
        mode=1,
        mode_name="test",
        scopes=frozenset(),
        member_id=member.id,
        role=member.role,
        session_id=session_id,
    )


@pytest.fixture
async def owner(people: People, tenant: TenantKey) -> Principal:
    """The organization's owner."""
    return principal((await people.signing_in.create_link(tenant.organization_id))[0])


async def join(
    people: People, by: Principal, email: str, role: str = "VIEWER", password: str = ""
) -> Principal:
    """Somebody who was invited and has accepted."""
    _, token = await people.invitations.create(by, email, role)
    member, session, _ = await people.invitations.accept(token, "Ada", password, HERE)
    return principal(member, session.id)


async def actions(database: Database, tenant: TenantKey) -> list[str]:
    """What the audit log tells of members, newest first."""
    events, _ = await AuditLog(database).list(tenant, AuditFilter(group="member."), 0, "")
    return [entry.event.action for entry in events]


async def test_an_invitation_makes_a_member_once_and_signs_them_in(
    people: People, database: Database, tenant: TenantKey, owner: Principal
) -> None:
    invitation, token = await people.invitations.create(owner, " Ada@Example.COM ", "DEVELOPER")
    offer, organization_name = await people.invitations.look_at(token)
    assert (offer.id, offer.email, organization_name) == (invitation.id, "ada@example.com", "Acme")
    member, _, session_token = await people.invitations.accept(token, "Ada", PASSWORD, HERE)
    assert (member.email, member.role, member.name) == ("ada@example.com", "DEVELOPER", "Ada")
    assert (await people.signing_in.resolve(session_token)).member.id == member.id
    for again in (
        people.invitations.look_at(token),
        people.invitations.accept(token, "A", "", HERE),
    ):
        with pytest.raises(UnauthenticatedError):
            await again
    again_member, _, _ = await people.signing_in.by_password("ADA@example.com", PASSWORD, HERE)
    assert again_member.id == member.id
    assert await actions(database, tenant) == [
        "member.signed_in",
        "member.signed_in",
        "member.created",
        "member.invited",
        "member.created",
    ]


async def test_of_many_who_accept_at_once_one_becomes_a_member(
    people: People, owner: Principal
) -> None:
    _, token = await people.invitations.create(owner, "ada@example.com", "VIEWER")
    tries = [people.invitations.accept(token, "Ada", "", HERE) for _ in range(4)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(each) for each in outcomes].count(tuple) == 1
    assert len((await people.members.list(owner.organization_id, 0, ""))[0]) == 2


async def test_an_invitation_can_be_taken_back_and_replaced(
    people: People, owner: Principal
) -> None:
    first, old = await people.invitations.create(owner, "ada@example.com", "VIEWER")
    second, new = await people.invitations.create(owner, "ada@example.com", "ADMIN")
    with pytest.raises(UnauthenticatedError):
        await people.invitations.look_at(old)
    revoked = await people.invitations.revoke(owner, second.id)
    assert (await people.invitations.revoke(owner, second.id)) == revoked
    for token in (new, make_token(INVITATION_START), "x", ""):
        with pytest.raises(UnauthenticatedError):
            await people.invitations.look_at(token)
    listed, _ = await people.invitations.list(owner.organization_id, 0, "")
    assert [each.id for each in listed] == [second.id, first.id]
    assert all(each.revoke_time for each in listed)


async def test_an_invitation_is_too_old_after_a_week(
    people: People, database: Database, owner: Principal
) -> None:
    _, token = await people.invitations.create(owner, "ada@example.com", "VIEWER")
    async with database.transaction() as connection:
        await connection.execute(text("ALTER TABLE invitations DISABLE TRIGGER keep_invitations"))
        columns = ("create_time", "expire_time")
        moved = ", ".join(f"{column} = {column} - interval '7 days'" for column in columns)
        await connection.execute(text(f"UPDATE invitations SET {moved}"))
    with pytest.raises(UnauthenticatedError):
        await people.invitations.look_at(token)


async def test_what_is_wrong_with_an_invitation_is_named_all_at_once(
    people: People, owner: Principal
) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await people.invitations.create(owner, "ada", "BOSS")
    assert [problem.field for problem in refused.value.problems] == ["email", "role"]
    _, token = await people.invitations.create(owner, "ada@example.com", "VIEWER")
    with pytest.raises(InvalidArgumentError) as refused:
        await people.invitations.accept(token, " ", "short", HERE)
    assert [problem.field for problem in refused.value.problems] == ["name", "password"]
    await people.invitations.accept(token, "Ada", "", HERE)
    with pytest.raises(ConflictError):
        await people.invitations.create(owner, "Ada@example.com", "VIEWER")


async def test_an_admin_invites_anybody_but_owners(people: People, owner: Principal) -> None:
    admin = await join(people, owner, "admin@example.com", "ADMIN")
    await people.invitations.create(admin, "dev@example.com", "ADMIN")
    with pytest.raises(PermissionDeniedError):
        await people.invitations.create(admin, "boss@example.com", "OWNER")


async def test_a_member_changes_and_goes_at_once(
    people: People,
    changes: RecordedChanges,
    database: Database,
    tenant: TenantKey,
    owner: Principal,
) -> None:
    ada = await join(people, owner, "ada@example.com", password=PASSWORD)
    changes.member_ids.clear()
    change = MemberChange(name="Ada L.", email="ADA@example.org", role="ADMIN")
    member = await people.members.change(owner, ada.member_id, change)
    assert (member.name, member.email, member.role) == ("Ada L.", "ada@example.org", "ADMIN")
    _, _, token = await people.signing_in.by_password("ada@example.org", PASSWORD, HERE)
    assert (await people.signing_in.resolve(token)).member.role == "ADMIN"
    await people.members.remove(owner, ada.member_id)
    assert changes.member_ids == [ada.member_id] * 2
    with pytest.raises(UnauthenticatedError):
        await people.signing_in.resolve(token)
    with pytest.raises(UnauthenticatedError):
        await people.signing_in.by_password("ada@example.org", PASSWORD, HERE)
    for again in (
        people.members.remove(owner, ada.member_id),
        people.members.change(owner, ada.member_id, change),
        people.members.get(owner.organization_id, ada.member_id),
    ):
        with pytest.raises(NotFoundError):
            await again
    assert (await actions(database, tenant))[0] == "member.removed"
    # The address is free again, for somebody else.
    assert (await join(people, owner, "ada@example.org")).member_id != ada.member_id


async def test_two_members_never_have_one_address(people: People, owner: Principal) -> None:
    ada = await join(people, owner, "ada@example.com")
    await join(people, owner, "bob@example.com")
    with pytest.raises(ConflictError):
        await people.members.change(ada, ada.member_id, MemberChange(email="BOB@example.com"))
    with pytest.raises(InvalidArgumentError) as refused:
        wrong = MemberChange(name="", email="@", role="KING")
        await people.members.change(owner, ada.member_id, wrong)
    assert [each.field for each in refused.value.problems] == ["name", "email", "role"]


async def test_the_last_owner_stays(people: People, database: Database, owner: Principal) -> None:
    for leaving in (
        people.members.remove(owner, owner.member_id),
        people.members.change(owner, owner.member_id, MemberChange(role="ADMIN")),
    ):
        with pytest.raises(PreconditionError) as refused:
            await leaving
        assert refused.value.reason == "last_owner"
    for statement in (
        "UPDATE members SET role = 'VIEWER'",
        "UPDATE members SET remove_time = now()",
        "DELETE FROM members",
        "TRUNCATE members CASCADE",
    ):
        with pytest.raises(DBAPIError, match=r"last owner|never deleted"):
            async with database.transaction() as connection:
                await connection.execute(text(statement))


async def test_of_two_owners_who_leave_at_once_one_stays(
    people: People, database: Database, owner: Principal
) -> None:
    second = await join(people, owner, "second@example.com", "OWNER")
    outcomes = await asyncio.gather(
        people.members.remove(owner, second.member_id),
        people.members.remove(second, owner.member_id),
        return_exceptions=True,
    )
    assert sorted(type(each).__name__ for each in outcomes) == ["NoneType", "PreconditionError"]


async def test_of_two_owners_who_leave_the_database_at_once_one_stays(
    people: People, database: Database, owner: Principal
) -> None:
    """Whatever the code above it does."""
    second = await join(people, owner, "second@example.com", "OWNER")

    async def leave(member_id: str) -> None:
        async with database.transaction() as connection:
            statement = text("UPDATE members SET remove_time = now() WHERE id = :id")
            await connection.execute(statement, {"id": member_id})

    leaving = [leave(owner.member_id), leave(second.member_id)]
    outcomes = await asyncio.gather(*leaving, return_exceptions=True)
    assert [each is None for each in outcomes].count(True) == 1


async def test_a_member_of_another_organization_is_not_found(
    people: People, owner: Principal
) -> None:
    other = await people.accounts.create_organization("Other")
    stranger = principal((await people.signing_in.create_link(other.id))[0])
    invitation, _ = await people.invitations.create(owner, "ada@example.com", "VIEWER")
    for trying in (
        people.members.change(stranger, owner.member_id, MemberChange(name="X")),
        people.members.remove(stranger, owner.member_id),
        people.invitations.revoke(stranger, invitation.id),
    ):
        with pytest.raises(NotFoundError):
            await trying
    listed, _ = await people.members.list(other.id, 0, "")
    assert [each.id for each in listed] == [stranger.member_id]
    assert (await people.invitations.list(other.id, 0, ""))[0] == []


async def test_a_password_takes_the_present_one_and_ends_other_sessions(
    people: People, owner: Principal
) -> None:
    ada = await join(people, owner, "ada@example.com")
    await people.members.set_password(ada, PASSWORD, "")
    _, _, elsewhere = await people.signing_in.by_password("ada@example.com", PASSWORD, HERE)
    with pytest.raises(InvalidArgumentError) as refused:
        await people.members.set_password(ada, "another horse battery", "wrong")
    assert [each.field for each in refused.value.problems] == ["currentPassword"]
    with pytest.raises(InvalidArgumentError) as refused:
        await people.members.set_password(ada, "short", PASSWORD)
    assert [each.field for each in refused.value.problems] == ["password"]
    await people.members.set_password(ada, "another horse battery", PASSWORD)
    with pytest.raises(UnauthenticatedError):
        await people.signing_in.resolve(elsewhere)
    working, _ = await people.signing_in.list_sessions(ada.member_id, 0, "")
    assert [session.id for session in working] == [ada.session_id]


async def test_who_is_in_two_organizations_has_a_password_for_each(
    people: People, owner: Principal
) -> None:
    other = await people.accounts.create_organization("Other")
    there = principal((await people.signing_in.create_link(other.id))[0])
    here = await join(people, owner, "ada@example.com", password=PASSWORD)
    elsewhere = await join(people, there, "ada@example.com", password=PASSWORD)
    for organization_id, member_id in (
        (owner.organization_id, here.member_id),
        (other.id, elsewhere.member_id),
        ("", elsewhere.member_id),  # where they signed in last
    ):
        member, _, _ = await people.signing_in.by_password(
            "ada@example.com", PASSWORD, HERE, organization_id=organization_id
        )
        assert member.id == member_id


@pytest.mark.parametrize("email", ["ada@example.com", "nobody@example.com", "", "owner@localhost"])
async def test_wrong_passwords_are_answered_alike_and_slowed_down(
    people: People, database: Database, owner: Principal, email: str
) -> None:
    await join(people, owner, "ada@example.com", password=PASSWORD)
    messages = set()
    for _ in range(BY_EMAIL.free):
        with pytest.raises(UnauthenticatedError) as refused:
            await people.signing_in.by_password(email, "wrong", HERE)
        messages.add((refused.value.message, refused.value.reason))
    assert messages == {("Wrong address or password", "wrong_password")}
    slowed = await too_many(people, [(email, Seen("192.0.2.99"))] * 20)
    assert 0 < (slowed.retry_after_s or 0) <= BY_EMAIL.wait_s_max
    async with database.transaction() as connection:
        past = FORGOTTEN_AFTER + timedelta(seconds=1)
        await connection.execute(
            text("UPDATE sign_in_failures SET last_time = last_time - CAST(:by AS interval)"),
            {"by": past},
        )
    if email == "ada@example.com":
        await people.signing_in.by_password(email, PASSWORD, HERE)
        async with database.transaction() as connection:
            left = (await connection.execute(text("SELECT * FROM sign_in_failures"))).all()
        assert left == []


async def test_many_attempts_at_once_are_slowed_down_like_many_in_a_row(
    people: People, owner: Principal
) -> None:
    tries = [people.signing_in.by_password("a@example.com", "wrong", HERE) for _ in range(12)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert {type(each) for each in outcomes} == {UnauthenticatedError, OverloadedError}


async def test_a_network_that_tries_many_addresses_is_slowed_down(
    people: People, owner: Principal
) -> None:
    numbers = range(BY_ADDRESS.free + 20)
    tries = [(f"a{number}@example.com", Seen(f"2001:db8::{number:x}")) for number in numbers]
    await too_many(people, tries)
    with pytest.raises(UnauthenticatedError):
        await people.signing_in.by_password("b@example.com", "wrong", Seen("2001:db8:0:1::1"))


async def too_many(people: People, tries: list[tuple[str, Seen]]) -> OverloadedError:
    """The refusal of whoever tries these one after the other: waits grow until one comes too
    early, however slow the machine is.
    """
    for email, seen in tries:
        try:
            await people.signing_in.by_password(email, "wrong", seen)
        except OverloadedError as error:
            return error
        except UnauthenticatedError:
            continue
    raise AssertionError("nobody was too early")
