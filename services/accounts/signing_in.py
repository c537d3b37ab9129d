"""Signing in: by a link that works once, or by a password; sessions and who they stand for."""

from dataclasses import dataclass, replace
from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.accounts import audit_repository, clocks_repository, people_repository
from services.accounts.attempts import Attempts
from services.accounts.changes import Changes, told
from services.accounts.domain import ClockTime, hash_key
from services.accounts.passwords import Passwords
from services.accounts.people import (
    LINK_LIFE,
    SESSION_IDLE_MAX,
    SESSION_KEPT,
    SESSION_LIFE,
    SESSION_USE_WRITTEN,
    SESSIONS_PER_MEMBER_MAX,
    Member,
    Seen,
    Session,
    check_email,
    normal_email,
)
from services.kit import clock, pages
from services.kit.auth import invalid_session
from services.kit.database import Database
from services.kit.errors import FieldChecks, NotFoundError, UnauthenticatedError
from services.kit.ids import is_id, new_id
from services.kit.keys import SESSION_START, SIGN_IN_LINK_START, is_token, make_token

log = structlog.get_logger()

OWNER_EMAIL_DEFAULT = "owner@localhost"
# Of one address: each organization has its own.
MEMBERSHIPS_TRIED_MAX = 20


@dataclass(frozen=True, slots=True)
class ResolvedSession:
    """A session that works, whose it is, what their organization decided, and its test clocks."""

    session: Session
    member: Member
    event_past_days: int
    strict_metrics: bool
    clocks: tuple[ClockTime, ...]


class SigningIn:
    """The use cases. Each is one transaction, committed before it returns."""

    def __init__(
        self, database: Database, pepper: bytes, changes: Changes, passwords: Passwords
    ) -> None:
        self._database = database
        self._pepper = pepper
        self._changes = changes
        self._passwords = passwords
        self._attempts = Attempts(database)

    async def create_link(
        self, organization_id: str, email: str = "", *, default_email: str = ""
    ) -> tuple[Member, str, datetime]:
        """A link for a member: whom it signs in, its token, which is not kept, and its end.

        Without `email` for the first owner; an organization without any gets one. The member's
        other links stop working. NotFoundError: no such organization or member.
        """
        now = clock.now()
        token = make_token(SIGN_IN_LINK_START)
        async with self._database.transaction() as connection:
            known = is_id(organization_id, "org") and await people_repository.lock_organization(
                connection, organization_id
            )
            if not known:
                raise NotFoundError("No such organization")
            if email:
                member = await people_repository.find_member(
                    connection, organization_id, normal_email(email)
                )
            else:
                member = await people_repository.first_owner(connection, organization_id)
                if member is None:
                    member = await _make_owner(
                        connection, organization_id, default_email or OWNER_EMAIL_DEFAULT
                    )
            if member is None:
                raise NotFoundError("No such member")
            expire_time = now + LINK_LIFE
            await people_repository.replace_link(
                connection,
                link_id=new_id("lnk"),
                member_id=member.id,
                token_hash=hash_key(self._pepper, token),
                create_time=now,
                expire_time=expire_time,
            )
        return member, token, expire_time

    async def by_link(self, token: str, seen: Seen) -> tuple[Member, Session, str]:
        """Sign in by a link, which is used up: who, the session and its token.

        UnauthenticatedError alike for what is no link, was used, or is too old.
        """
        if not is_token(token, SIGN_IN_LINK_START):
            raise _invalid_link()
        async with self._database.transaction() as connection:
            member = await people_repository.use_link(
                connection, hash_key(self._pepper, token), clock.now()
            )
            if member is None:
                raise _invalid_link()
            return await self.begin_session(connection, member, seen, "link")

    async def by_password(
        self, email: str, password: str, seen: Seen, *, organization_id: str = ""
    ) -> tuple[Member, Session, str]:
        """Sign in by a password; whoever is in several organizations with it goes to
        `organization_id`, or to where they were last.

        UnauthenticatedError alike for an unknown address and a wrong password; OverloadedError
        after too many failures.
        """
        email = normal_email(email)
        await self._attempts.begin(email, seen.address)
        async with self._database.transaction() as connection:
            known = await people_repository.members_with(
                connection, email, organization_id, MEMBERSHIPS_TRIED_MAX
            )
        member = await self._whose_password(known, password)
        if member is None:
            raise _wrong_password()
        await self._attempts.forgive(email, seen.address)
        async with self._database.transaction() as connection:
            # It took a while to look at the password: they may have been removed meanwhile.
            current = await people_repository.get_member(
                connection, member.organization_id, member.id, for_update=True
            )
            if current is None or current.password_hash != member.password_hash:
                raise _wrong_password()
            return await self.begin_session(connection, current, seen, "password")

    async def _whose_password(self, known: list[Member], password: str) -> Member | None:
        for member in known:
            if await self._passwords.matches(member.password_hash, password):
                return member
        if not known:
            # Nobody learns from how long it takes who has an account here.
            await self._passwords.matches(None, password)
        return None

    async def begin_session(
        self, connection: AsyncConnection, member: Member, seen: Seen, way: str
    ) -> tuple[Member, Session, str]:
        """Sign a member in, in the caller's transaction; `way` is how they proved who they are."""
        now = clock.now()
        token = make_token(SESSION_START)
        seen = seen.shortened()
        session = Session(
            id=new_id("ses"),
            member_id=member.id,
            create_time=now,
            use_time=now,
            expire_time=now + SESSION_LIFE,
            end_time=None,
            address=seen.address,
            user_agent=seen.user_agent,
        )
        await people_repository.insert_session(connection, session, hash_key(self._pepper, token))
        await people_repository.trim_sessions(
            connection,
            member.id,
            kept_since=now - SESSION_KEPT,
            count_max=SESSIONS_PER_MEMBER_MAX,
        )
        await audit_repository.note_in_both_modes(
            connection,
            member.organization_id,
            "member.signed_in",
            target_id=member.id,
            by=member.id,
            details={"sessionId": session.id, "way": way, "address": session.address},
        )
        log.info("signed_in", member_id=member.id, session_id=session.id, way=way)
        return replace(member, sign_in_time=now), session, token

    async def resolve(self, token: str) -> ResolvedSession:
        """Who the session is, which is used now. UnauthenticatedError alike for a wrong, ended and
        expired one.
        """
        if not is_token(token, SESSION_START):
            raise invalid_session()
        now = clock.now()
        async with self._database.transaction() as connection:
            found = await people_repository.find_session(connection, hash_key(self._pepper, token))
            if found is None or not found[0].works_at(now):
                raise invalid_session()
            session, member, event_past_days, strict_metrics = found
            if now - session.use_time > SESSION_USE_WRITTEN:
                await people_repository.note_use(connection, session.id, now)
            running = clocks_repository.running_clocks
            clocks = await running(connection, member.organization_id)
        return ResolvedSession(session, member, event_past_days, strict_metrics, clocks)

    async def end(self, token: str) -> None:
        """Sign out; repeating it changes nothing."""
        try:
            resolved = await self.resolve(token)
        except UnauthenticatedError:
            return
        await self.revoke(resolved.member.id, resolved.session.id)

    async def revoke(self, member_id: str, session_id: str) -> None:
        """End one of a member's sessions; repeating it changes nothing. NotFoundError."""
        ended: bool | None = None
        if is_id(session_id, "ses"):
            async with self._database.transaction() as connection:
                ended = await people_repository.end_session(
                    connection, member_id, session_id, clock.now()
                )
        if ended is None:
            raise NotFoundError("No such session")
        if ended:
            log.info("session_ended", member_id=member_id, session_id=session_id)
            await told(self._changes.member_changed(member_id), "member_change_not_told")

    async def list_sessions(
        self, member_id: str, page_size: int, page_token: str
    ) -> tuple[list[Session], str]:
        """A page of the member's sessions that work, newest first, and the next page's token."""
        limit = pages.page_limit(page_size)
        now = clock.now()
        async with self._database.transaction() as connection:
            found = await people_repository.list_sessions(
                connection,
                member_id,
                used_since=now - SESSION_IDLE_MAX,
                now=now,
                before_id=pages.id_position(page_token, "ses"),
                limit=limit + 1,
            )
        return pages.page_of_ids(found, limit)


async def _make_owner(connection: AsyncConnection, organization_id: str, email: str) -> Member:
    """The first owner of an organization that has none."""
    email = normal_email(email)
    checks = FieldChecks()
    check_email(checks, email)
    checks.done()
    owner = Member(
        id=new_id("mem"),
        organization_id=organization_id,
        email=email,
        name="Owner",
        role="OWNER",
        password_hash=None,
        create_time=clock.now(),
        sign_in_time=None,
        remove_time=None,
    )
    await people_repository.insert_member(connection, owner)
    await audit_repository.note_in_both_modes(
        connection,
        organization_id,
        "member.created",
        target_id=owner.id,
        details={"email": owner.email, "role": owner.role},
    )
    return owner


def _invalid_link() -> UnauthenticatedError:
    return UnauthenticatedError(
        "This sign-in link does not work: it was used, is too old, or was replaced by a newer one",
        reason="invalid_link",
    )


def _wrong_password() -> UnauthenticatedError:
    return UnauthenticatedError("Wrong address or password", reason="wrong_password")
