"""Invitations: a link that makes somebody a member, once."""

from datetime import timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.accounts import audit_repository, invitations_repository, people_repository
from services.accounts.domain import hash_key
from services.accounts.invitations_repository import Invitation
from services.accounts.passwords import Passwords, check_password
from services.accounts.people import (
    Member,
    Seen,
    Session,
    check_email,
    check_name,
    check_role,
    normal_email,
)
from services.accounts.signing_in import SigningIn
from services.kit import clock, pages
from services.kit.auth import Principal
from services.kit.database import Database
from services.kit.errors import (
    ConflictError,
    FieldChecks,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from services.kit.etag import Expectation
from services.kit.ids import is_id, new_id
from services.kit.keys import INVITATION_START, is_token, make_token

log = structlog.get_logger()

INVITATION_LIFE = timedelta(days=7)
# Of one organization, that nobody has accepted yet.
OPEN_MAX = 200


class Invitations:
    """The use cases. Each is one transaction, committed before it returns."""

    def __init__(
        self, database: Database, pepper: bytes, signing_in: SigningIn, passwords: Passwords
    ) -> None:
        self._database = database
        self._pepper = pepper
        self._signing_in = signing_in
        self._passwords = passwords

    async def create(self, by: Principal, email: str, role: str) -> tuple[Invitation, str]:
        """Invite somebody into the caller's organization: the invitation and its token, which is
        not kept. An open one for the same address is replaced.

        Only owners make owners. InvalidArgumentError names all wrong fields; ConflictError: they
        are a member already; OverloadedError: too many are open.
        """
        email = normal_email(email)
        checks = FieldChecks()
        check_email(checks, email)
        check_role(checks, role)
        checks.done()
        if role == "OWNER" and by.role != "OWNER":
            raise PermissionDeniedError("Only owners invite owners", reason="missing_role")
        now = clock.now()
        token = make_token(INVITATION_START)
        invitation = Invitation(
            id=new_id("ivt"),
            organization_id=by.organization_id,
            email=email,
            role=role,
            invited_by=by.actor_id,
            create_time=now,
            expire_time=now + INVITATION_LIFE,
            accept_time=None,
            revoke_time=None,
            member_id=None,
        )
        async with self._database.transaction() as connection:
            await people_repository.lock_organization(connection, by.organization_id)
            if await people_repository.find_member(connection, by.organization_id, email):
                raise ConflictError("They are a member already", reason="already_member")
            await invitations_repository.revoke_open(connection, by.organization_id, email, now)
            if (
                await invitations_repository.count_open(connection, by.organization_id, now)
                >= OPEN_MAX
            ):
                raise OverloadedError(
                    f"At most {OPEN_MAX} invitations may be open: revoke some",
                    reason="too_many_invitations",
                )
            await invitations_repository.insert_invitation(
                connection, invitation, hash_key(self._pepper, token)
            )
            await audit_repository.note_in_both_modes(
                connection,
                by.organization_id,
                "member.invited",
                target_id=invitation.id,
                by=by.actor_id,
                details={"email": email, "role": role},
            )
        log.info("member_invited", invitation_id=invitation.id)
        return invitation, token

    async def list(
        self, organization_id: str, page_size: int, page_token: str
    ) -> tuple[list[Invitation], str]:
        """A page of the organization's invitations, newest first, and the next page's token."""
        limit = pages.page_limit(page_size)
        async with self._database.transaction() as connection:
            found = await invitations_repository.list_invitations(
                connection,
                organization_id,
                before_id=pages.id_position(page_token, "ivt"),
                limit=limit + 1,
            )
        return pages.page_of_ids(found, limit)

    async def get(self, organization_id: str, invitation_id: str) -> Invitation:
        """The organization's invitation; NotFoundError."""
        async with self._database.transaction() as connection:
            return await _require(connection, organization_id, invitation_id)

    async def revoke(
        self, by: Principal, invitation_id: str, *, expect: Expectation[Invitation] | None = None
    ) -> Invitation:
        """Take an invitation back; repeating it changes nothing. NotFoundError; ConflictError: it
        was accepted; StaleError when it is not as `expect` has it.
        """
        async with self._database.transaction() as connection:
            found = await _require(connection, by.organization_id, invitation_id, for_update=True)
            if expect is not None:
                expect(found)
            if found.accept_time is not None:
                raise ConflictError("It was accepted: remove the member", reason="accepted")
            if found.revoke_time is None:
                found = await invitations_repository.revoke_invitation(
                    connection, found, clock.now()
                )
                await audit_repository.note_in_both_modes(
                    connection,
                    by.organization_id,
                    "member.uninvited",
                    target_id=found.id,
                    by=by.actor_id,
                    details={"email": found.email, "role": found.role},
                )
        return found

    async def look_at(self, token: str) -> tuple[Invitation, str]:
        """What a link offers: the invitation and the organization's name. UnauthenticatedError."""
        if is_token(token, INVITATION_START):
            async with self._database.transaction() as connection:
                found = await invitations_repository.find_open(
                    connection, hash_key(self._pepper, token), clock.now()
                )
            if found is not None:
                return found
        raise _invalid()

    async def accept(
        self, token: str, name: str, password: str, seen: Seen
    ) -> tuple[Member, Session, str]:
        """Become a member and sign in; the invitation is used up. `password` "": set none.

        InvalidArgumentError names all wrong fields; UnauthenticatedError alike for what is no
        invitation, was used, taken back, or is too old.
        """
        checks = FieldChecks()
        check_name(checks, name)
        if password:
            check_password(checks, password)
        checks.done()
        organization_id = (await self.look_at(token))[0].organization_id
        password_hash = await self._passwords.hash(password) if password else None
        now = clock.now()
        async with self._database.transaction() as connection:
            # Who comes second waits here, and finds the invitation used.
            await people_repository.lock_organization(connection, organization_id)
            found = await invitations_repository.find_open(
                connection, hash_key(self._pepper, token), now, for_update=True
            )
            if found is None:
                raise _invalid()
            invitation, _organization_name = found
            if await people_repository.find_member(
                connection, invitation.organization_id, invitation.email
            ):
                raise ConflictError("You are a member already: sign in", reason="already_member")
            member = Member(
                id=new_id("mem"),
                organization_id=invitation.organization_id,
                email=invitation.email,
                name=name,
                role=invitation.role,
                password_hash=password_hash,
                create_time=now,
                sign_in_time=None,
                remove_time=None,
            )
            await people_repository.insert_member(connection, member)
            await invitations_repository.accept_invitation(connection, invitation, member.id, now)
            await audit_repository.note_in_both_modes(
                connection,
                member.organization_id,
                "member.created",
                target_id=member.id,
                by=member.id,
                details={
                    "email": member.email,
                    "role": member.role,
                    "invitationId": invitation.id,
                    "invitedBy": invitation.invited_by,
                },
            )
            log.info("invitation_accepted", invitation_id=invitation.id, member_id=member.id)
            return await self._signing_in.begin_session(connection, member, seen, "invitation")


async def _require(
    connection: AsyncConnection,
    organization_id: str,
    invitation_id: str,
    *,
    for_update: bool = False,
) -> Invitation:
    found = None
    if is_id(invitation_id, "ivt"):
        found = await invitations_repository.get_invitation(
            connection, organization_id, invitation_id, for_update=for_update
        )
    if found is None:
        raise NotFoundError("No such invitation")
    return found


def _invalid() -> UnauthenticatedError:
    return UnauthenticatedError(
        "This invitation does not work: it was used, taken back, or is older than a week",
        reason="invalid_invitation",
    )
