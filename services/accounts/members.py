"""Members: who they are, what they may do, that they go, and their passwords."""

from dataclasses import dataclass, replace

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.accounts import audit_repository, people_repository
from services.accounts.attempts import Attempts
from services.accounts.changes import Changes, told
from services.accounts.passwords import Passwords, check_password
from services.accounts.people import Member, check_email, check_name, check_role, normal_email
from services.kit import clock, pages
from services.kit.audit import changes
from services.kit.auth import Principal
from services.kit.database import Database
from services.kit.errors import (
    ConflictError,
    FieldChecks,
    FieldProblem,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
)
from services.kit.etag import Expectation
from services.kit.ids import is_id

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class MemberChange:
    """What is to change; None stays as it is."""

    name: str | None = None
    email: str | None = None
    role: str | None = None

    def of(self, member: Member) -> Member:
        """The member with the change made. InvalidArgumentError names all that is wrong."""
        changed = replace(
            member,
            name=member.name if self.name is None else self.name,
            email=member.email if self.email is None else normal_email(self.email),
            role=member.role if self.role is None else self.role,
        )
        checks = FieldChecks()
        check_name(checks, changed.name)
        check_email(checks, changed.email)
        check_role(checks, changed.role)
        checks.done()
        return changed


class Members:
    """The use cases. Each is one transaction, committed before it returns."""

    def __init__(self, database: Database, changes: Changes, passwords: Passwords) -> None:
        self._database = database
        self._changes = changes
        self._passwords = passwords
        self._attempts = Attempts(database)

    async def get(self, organization_id: str, member_id: str) -> Member:
        """The organization's member; NotFoundError."""
        async with self._database.transaction() as connection:
            return await _require(connection, organization_id, member_id)

    async def list(
        self, organization_id: str, page_size: int, page_token: str
    ) -> tuple[list[Member], str]:
        """A page of the organization's members, newest first, and the next page's token."""
        limit = pages.page_limit(page_size)
        async with self._database.transaction() as connection:
            found = await people_repository.list_members(
                connection,
                organization_id,
                before_id=pages.id_position(page_token, "mem"),
                limit=limit + 1,
            )
        return pages.page_of_ids(found, limit)

    async def change(
        self,
        by: Principal,
        member_id: str,
        change: MemberChange,
        *,
        expect: Expectation[Member] | None = None,
    ) -> Member:
        """Change one member of the caller's organization; the member as they are now.

        InvalidArgumentError names all wrong fields; NotFoundError; ConflictError: another member
        has the address; PreconditionError: the last owner stays one; StaleError when they are not
        as `expect` has them. A new role holds at once.
        """
        async with self._database.transaction() as connection:
            await people_repository.lock_organization(connection, by.organization_id)
            before = await _require(connection, by.organization_id, member_id, for_update=True)
            if expect is not None:
                expect(before)
            member = change.of(before)
            details = changes(_shown(before), _shown(member))
            if not details:
                return before
            if before.role == "OWNER" and member.role != "OWNER":
                await _require_another_owner(connection, before)
            if member.email != before.email:
                other = await people_repository.find_member(
                    connection, by.organization_id, member.email
                )
                if other is not None:
                    raise ConflictError("Another member has this address", reason="email_taken")
            await people_repository.update_member(connection, member)
            await audit_repository.note_in_both_modes(
                connection,
                by.organization_id,
                "member.updated",
                target_id=member.id,
                by=by.actor_id,
                details=details,
            )
        log.info("member_updated", member_id=member.id)
        await told(self._changes.member_changed(member.id), "member_change_not_told")
        return member

    async def remove(
        self, by: Principal, member_id: str, *, expect: Expectation[Member] | None = None
    ) -> None:
        """A member goes: their sessions and links end at once. NotFoundError; PreconditionError:
        the last owner stays; StaleError when they are not as `expect` has them.
        """
        now = clock.now()
        async with self._database.transaction() as connection:
            await people_repository.lock_organization(connection, by.organization_id)
            member = await _require(connection, by.organization_id, member_id, for_update=True)
            if expect is not None:
                expect(member)
            if member.role == "OWNER":
                await _require_another_owner(connection, member)
            await people_repository.remove_member(connection, member.id, now)
            await people_repository.end_sessions(connection, member.id, now)
            await audit_repository.note_in_both_modes(
                connection,
                by.organization_id,
                "member.removed",
                target_id=member.id,
                by=by.actor_id,
                details={"email": member.email, "name": member.name, "role": member.role},
            )
        log.info("member_removed", member_id=member_id)
        await told(self._changes.member_changed(member_id), "member_change_not_told")

    async def set_password(self, by: Principal, password: str, current: str) -> Member:
        """Set the caller's own password; their other sessions end.

        `current` is asked for when there is one already: a session left open must not be enough to
        keep its member out for good. InvalidArgumentError; OverloadedError after many failures.
        """
        checks = FieldChecks()
        check_password(checks, password)
        checks.done()
        member = await self.get(by.organization_id, by.member_id)
        if member.password_hash is not None:
            await self._attempts.begin(member.email, "")
            if not await self._passwords.matches(member.password_hash, current):
                raise InvalidArgumentError(
                    [FieldProblem("currentPassword", "is not the present password")]
                )
            await self._attempts.forgive(member.email, "")
        password_hash = await self._passwords.hash(password)
        async with self._database.transaction() as connection:
            before = await _require(connection, by.organization_id, by.member_id, for_update=True)
            if before.password_hash != member.password_hash:
                raise PreconditionError("The password was changed meanwhile", reason="changed")
            member = replace(before, password_hash=password_hash)
            await people_repository.update_member(connection, member)
            await people_repository.end_sessions(
                connection, member.id, clock.now(), but=by.session_id
            )
            await audit_repository.note_in_both_modes(
                connection,
                by.organization_id,
                "member.password_set",
                target_id=member.id,
                by=by.actor_id,
                details={},
            )
        log.info("password_set", member_id=member.id)
        await told(self._changes.member_changed(member.id), "member_change_not_told")
        return member


async def _require(
    connection: AsyncConnection, organization_id: str, member_id: str, *, for_update: bool = False
) -> Member:
    member = None
    if is_id(member_id, "mem"):
        member = await people_repository.get_member(
            connection, organization_id, member_id, for_update=for_update
        )
    if member is None:
        raise NotFoundError("No such member")
    return member


async def _require_another_owner(connection: AsyncConnection, owner: Member) -> None:
    """The organization is locked, so that of two owners who go at once one stays."""
    if not await people_repository.has_other_owner(connection, owner):
        raise PreconditionError(
            "An organization keeps at least one owner: make somebody else an owner first",
            reason="last_owner",
        )


def _shown(member: Member) -> dict[str, object]:
    return {"name": member.name, "email": member.email, "role": member.role}
