"""SQL of members, sessions and links. Each function works inside the caller's transaction."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.accounts.people import Member, Session
from services.accounts.tables import members, organizations, sessions, sign_in_links

_SESSION_COLUMNS = [column for column in sessions.c if column.name != "token_hash"]


async def insert_member(connection: AsyncConnection, member: Member) -> None:
    """Store a new member."""
    values = {column.name: getattr(member, column.name) for column in members.c}
    await connection.execute(insert(members).values(**values))


async def get_member(
    connection: AsyncConnection, organization_id: str, member_id: str, *, for_update: bool = False
) -> Member | None:
    """The organization's member unless they were removed; or None."""
    query = select(members).where(
        members.c.id == member_id,
        members.c.organization_id == organization_id,
        members.c.remove_time.is_(None),
    )
    if for_update:
        query = query.with_for_update()
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _member(row)


async def find_member(
    connection: AsyncConnection, organization_id: str, email: str
) -> Member | None:
    """The organization's member with this address; or None."""
    query = select(members).where(
        members.c.organization_id == organization_id,
        members.c.email == email,
        members.c.remove_time.is_(None),
    )
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _member(row)


async def first_owner(connection: AsyncConnection, organization_id: str) -> Member | None:
    """The owner who has been there longest; None: there is none."""
    query = select(members).where(
        members.c.organization_id == organization_id,
        members.c.role == "OWNER",
        members.c.remove_time.is_(None),
    )
    row = (await connection.execute(query.order_by(members.c.id).limit(1))).one_or_none()
    return None if row is None else _member(row)


async def members_with(
    connection: AsyncConnection, email: str, organization_id: str, limit: int
) -> list[Member]:
    """Up to `limit` members with this address, who signed in last first; of one organization
    unless it is "".
    """
    query = select(members).where(members.c.email == email, members.c.remove_time.is_(None))
    if organization_id:
        query = query.where(members.c.organization_id == organization_id)
    query = query.order_by(members.c.sign_in_time.desc().nulls_last(), members.c.id).limit(limit)
    return [_member(row) for row in await connection.execute(query)]


async def list_members(
    connection: AsyncConnection, organization_id: str, *, before_id: str | None, limit: int
) -> list[Member]:
    """Up to `limit` members who have not been removed, newest first, older than `before_id`."""
    query = select(members).where(
        members.c.organization_id == organization_id, members.c.remove_time.is_(None)
    )
    if before_id is not None:
        query = query.where(members.c.id < before_id)
    rows = await connection.execute(query.order_by(members.c.id.desc()).limit(limit))
    return [_member(row) for row in rows]


async def has_other_owner(connection: AsyncConnection, owner: Member) -> bool:
    """Whether somebody else owns the organization, too."""
    query = select(members.c.id).where(
        members.c.organization_id == owner.organization_id,
        members.c.role == "OWNER",
        members.c.remove_time.is_(None),
        members.c.id != owner.id,
    )
    return (await connection.execute(query.limit(1))).first() is not None


async def update_member(connection: AsyncConnection, member: Member) -> None:
    """Store what may change of a member."""
    await connection.execute(
        update(members)
        .where(members.c.id == member.id)
        .values(
            name=member.name,
            email=member.email,
            role=member.role,
            password_hash=member.password_hash,
        )
    )


async def remove_member(connection: AsyncConnection, member_id: str, time: datetime) -> None:
    """They are no member any more; their sign-in link is gone."""
    await connection.execute(delete(sign_in_links).where(sign_in_links.c.member_id == member_id))
    await connection.execute(
        update(members).where(members.c.id == member_id).values(remove_time=time)
    )


async def lock_organization(connection: AsyncConnection, organization_id: str) -> bool:
    """Whether it exists; until the commit nobody else changes who its owners are."""
    query = select(organizations.c.id).where(organizations.c.id == organization_id)
    row = (await connection.execute(query.with_for_update(key_share=True))).one_or_none()
    return row is not None


async def replace_link(
    connection: AsyncConnection,
    *,
    link_id: str,
    member_id: str,
    token_hash: bytes,
    create_time: datetime,
    expire_time: datetime,
) -> None:
    """Store a sign-in link, the member's only one."""
    await connection.execute(delete(sign_in_links).where(sign_in_links.c.member_id == member_id))
    await connection.execute(
        insert(sign_in_links).values(
            id=link_id,
            member_id=member_id,
            token_hash=token_hash,
            create_time=create_time,
            expire_time=expire_time,
        )
    )


async def use_link(connection: AsyncConnection, token_hash: bytes, time: datetime) -> Member | None:
    """Whom the link signs in, who has used it up; None: it is none, was used, or is too old.

    Of two who use it at the same time one gets the member: the other waits for the row.
    """
    used = (
        update(sign_in_links)
        .where(
            sign_in_links.c.token_hash == token_hash,
            sign_in_links.c.end_time.is_(None),
            sign_in_links.c.expire_time > time,
        )
        .values(end_time=time)
        .returning(sign_in_links.c.member_id)
    )
    member_id = (await connection.execute(used)).scalar_one_or_none()
    if member_id is None:
        return None
    query = select(members).where(members.c.id == member_id, members.c.remove_time.is_(None))
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _member(row)


async def insert_session(connection: AsyncConnection, session: Session, token_hash: bytes) -> None:
    """Store a new session under the hash of its token; its member has signed in."""
    values = {column.name: getattr(session, column.name) for column in _SESSION_COLUMNS}
    await connection.execute(insert(sessions).values(token_hash=token_hash, **values))
    await connection.execute(
        update(members)
        .where(members.c.id == session.member_id)
        .values(sign_in_time=session.create_time)
    )


async def trim_sessions(
    connection: AsyncConnection, member_id: str, *, kept_since: datetime, count_max: int
) -> None:
    """Delete the member's sessions that ended before `kept_since`, and what is beyond the newest
    `count_max`.
    """
    of_member = sessions.c.member_id == member_id
    await connection.execute(
        delete(sessions).where(
            of_member, (sessions.c.end_time < kept_since) | (sessions.c.expire_time < kept_since)
        )
    )
    beyond = select(sessions.c.id).where(of_member).order_by(sessions.c.id.desc())
    await connection.execute(
        delete(sessions).where(sessions.c.id.in_(beyond.offset(count_max).scalar_subquery()))
    )


async def find_session(
    connection: AsyncConnection, token_hash: bytes
) -> tuple[Session, Member, int, bool] | None:
    """The session with this token, its member, and event_past_days and strict_metrics of their
    organization; also when it has ended; or None, as after its member was removed.
    """
    decided = (organizations.c.event_past_days, organizations.c.strict_metrics)
    query = (
        select(*_SESSION_COLUMNS, *decided)
        .join_from(sessions, members, sessions.c.member_id == members.c.id)
        .join(organizations, members.c.organization_id == organizations.c.id)
        .where(sessions.c.token_hash == token_hash, members.c.remove_time.is_(None))
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    found = select(members).where(members.c.id == row.member_id)
    member = _member((await connection.execute(found)).one())
    return _session(row), member, row.event_past_days, row.strict_metrics


async def note_use(connection: AsyncConnection, session_id: str, time: datetime) -> None:
    """Write when the session was used last."""
    await connection.execute(
        update(sessions)
        .where(sessions.c.id == session_id, sessions.c.use_time < time)
        .values(use_time=time)
    )


async def list_sessions(
    connection: AsyncConnection,
    member_id: str,
    *,
    used_since: datetime,
    now: datetime,
    before_id: str | None,
    limit: int,
) -> list[Session]:
    """Up to `limit` sessions of the member that work now, newest first, older than `before_id`."""
    query = select(*_SESSION_COLUMNS).where(
        sessions.c.member_id == member_id,
        sessions.c.end_time.is_(None),
        sessions.c.expire_time > now,
        sessions.c.use_time > used_since,
    )
    if before_id is not None:
        query = query.where(sessions.c.id < before_id)
    rows = await connection.execute(query.order_by(sessions.c.id.desc()).limit(limit))
    return [_session(row) for row in rows]


async def end_session(
    connection: AsyncConnection, member_id: str, session_id: str, time: datetime
) -> bool | None:
    """End one of the member's sessions: whether it had not ended yet; None: there is none."""
    query = select(sessions.c.end_time).where(
        sessions.c.member_id == member_id, sessions.c.id == session_id
    )
    row = (await connection.execute(query.with_for_update())).one_or_none()
    if row is None:
        return None
    if row.end_time is not None:
        return False
    ended = update(sessions).where(sessions.c.id == session_id).values(end_time=time)
    await connection.execute(ended)
    return True


async def end_sessions(
    connection: AsyncConnection, member_id: str, time: datetime, *, but: str = ""
) -> None:
    """End all of a member's sessions but one."""
    await connection.execute(
        update(sessions)
        .where(
            sessions.c.member_id == member_id,
            sessions.c.end_time.is_(None),
            sessions.c.id != but,
        )
        .values(end_time=time)
    )


def _member(row: Row[Any]) -> Member:
    return Member(**{column.name: getattr(row, column.name) for column in members.c})


def _session(row: Any) -> Session:
    return Session(**{column.name: getattr(row, column.name) for column in _SESSION_COLUMNS})
