"""SQL of invitations. Each function works inside the caller's transaction."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.accounts.tables import invitations, organizations

_COLUMNS = [column for column in invitations.c if column.name != "token_hash"]
_open = invitations.c.accept_time.is_(None) & invitations.c.revoke_time.is_(None)


@dataclass(frozen=True, slots=True)
class Invitation:
    """A link that makes somebody a member, once. `member_id`: whom it made one, `invited_by`: who
    made it.
    """

    id: str
    organization_id: str
    email: str
    role: str
    invited_by: str
    create_time: datetime
    expire_time: datetime
    accept_time: datetime | None
    revoke_time: datetime | None
    member_id: str | None


async def insert_invitation(
    connection: AsyncConnection, invitation: Invitation, token_hash: bytes
) -> None:
    """Store a new invitation under the hash of its token."""
    values = {column.name: getattr(invitation, column.name) for column in _COLUMNS}
    await connection.execute(insert(invitations).values(token_hash=token_hash, **values))


async def revoke_open(
    connection: AsyncConnection, organization_id: str, email: str, time: datetime
) -> None:
    """Take back what is open for this address."""
    await connection.execute(
        update(invitations)
        .where(
            invitations.c.organization_id == organization_id, invitations.c.email == email, _open
        )
        .values(revoke_time=time)
    )


async def count_open(connection: AsyncConnection, organization_id: str, now: datetime) -> int:
    """How many of the organization's invitations somebody could still accept."""
    query = (
        select(func.count())
        .select_from(invitations)
        .where(
            invitations.c.organization_id == organization_id,
            _open,
            invitations.c.expire_time > now,
        )
    )
    return int((await connection.execute(query)).scalar_one())


async def list_invitations(
    connection: AsyncConnection, organization_id: str, *, before_id: str | None, limit: int
) -> list[Invitation]:
    """Up to `limit` invitations, newest first, older than `before_id`."""
    query = select(*_COLUMNS).where(invitations.c.organization_id == organization_id)
    if before_id is not None:
        query = query.where(invitations.c.id < before_id)
    rows = await connection.execute(query.order_by(invitations.c.id.desc()).limit(limit))
    return [_invitation(row) for row in rows]


async def get_invitation(
    connection: AsyncConnection,
    organization_id: str,
    invitation_id: str,
    *,
    for_update: bool = False,
) -> Invitation | None:
    """The organization's, or None; `for_update`: nobody else changes it before the commit."""
    query = select(*_COLUMNS).where(
        invitations.c.id == invitation_id, invitations.c.organization_id == organization_id
    )
    if for_update:
        query = query.with_for_update()
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _invitation(row)


async def revoke_invitation(
    connection: AsyncConnection, invitation: Invitation, time: datetime
) -> Invitation:
    """Take it back; the invitation as it is now."""
    await connection.execute(
        update(invitations).where(invitations.c.id == invitation.id).values(revoke_time=time)
    )
    return replace(invitation, revoke_time=time)


async def accept_invitation(
    connection: AsyncConnection, invitation: Invitation, member_id: str, time: datetime
) -> None:
    """It is used up: it made this member."""
    await connection.execute(
        update(invitations)
        .where(invitations.c.id == invitation.id)
        .values(accept_time=time, member_id=member_id)
    )


async def find_open(
    connection: AsyncConnection, token_hash: bytes, now: datetime, *, for_update: bool = False
) -> tuple[Invitation, str] | None:
    """The invitation with this token that can still be accepted, and its organization's name."""
    query = (
        select(*_COLUMNS, organizations.c.name.label("organization_name"))
        .join_from(invitations, organizations)
        .where(invitations.c.token_hash == token_hash, _open, invitations.c.expire_time > now)
    )
    if for_update:
        query = query.with_for_update(of=invitations)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else (_invitation(row), row.organization_name)


def _invitation(row: Any) -> Invitation:
    return Invitation(**{column.name: getattr(row, column.name) for column in _COLUMNS})
