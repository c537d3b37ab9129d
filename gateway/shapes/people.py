"""Members of the organization, and invitations."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType
from usageflow.accounts.v1 import accounts_pb2, members_pb2

from gateway.shapes.common import name_of, number_of, time_of, time_or_none
from gateway.shapes.members import Member, RoleName
from services.kit import clock

_ROLE = "ROLE_"
Password = Annotated[str, Meta(description="12 to 1,000 characters")]


class MemberPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of members."""

    data: list[Member]
    next_cursor: str | None


class OwnChange(msgspec.Struct, rename="camel", kw_only=True):
    """What to change of oneself; what is left out stays."""

    name: str | UnsetType = UNSET
    email: str | UnsetType = UNSET


class MemberChange(OwnChange, rename="camel", kw_only=True):
    """What to change of a member; what is left out stays."""

    role: RoleName | UnsetType = UNSET


class NewPassword(msgspec.Struct, rename="camel", kw_only=True):
    """A password for the calling member."""

    password: Password
    current_password: Annotated[
        str, Meta(description="The present one; left out when there is none")
    ] = ""


class NewInvitation(msgspec.Struct, rename="camel", kw_only=True):
    """Whom to invite, and as what."""

    email: str
    role: RoleName


class Invitation(msgspec.Struct, rename="camel", kw_only=True):
    """A link that makes somebody a member, once."""

    id: str
    email: str
    role: Annotated[str, Meta(description="OWNER, ADMIN, DEVELOPER or VIEWER")]
    status: Annotated[str, Meta(description="OPEN, ACCEPTED, REVOKED or EXPIRED")]
    invited_by: Annotated[str, Meta(description="The member who made it")]
    member_id: Annotated[str | None, Meta(description="Whom it made a member")]
    created_at: datetime
    expires_at: datetime


class InvitationWithUrl(Invitation, rename="camel", kw_only=True):
    """A new invitation; its link is shown only here."""

    url: Annotated[str, Meta(description="To pass on: whoever opens it becomes the member")]


class InvitationPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of invitations."""

    data: list[Invitation]
    next_cursor: str | None


def own_change_to_proto(change: OwnChange) -> members_pb2.UpdateCurrentMemberRequest:
    """The request that changes what was sent."""
    request = members_pb2.UpdateCurrentMemberRequest()
    _set(request, change, ("name", "email"))
    return request


def change_to_proto(member_id: str, change: MemberChange) -> members_pb2.UpdateMemberRequest:
    """The request that changes what was sent."""
    request = members_pb2.UpdateMemberRequest(member_id=member_id)
    _set(request, change, ("name", "email"))
    if change.role is not UNSET:
        request.role = number_of(accounts_pb2.Role, change.role, _ROLE)
    return request


def _set(request: object, change: OwnChange, names: tuple[str, ...]) -> None:
    for name in names:
        if (value := getattr(change, name)) is not UNSET:
            setattr(request, name, value)


def invitation_to_proto(new: NewInvitation) -> members_pb2.CreateInvitationRequest:
    """The request that invites somebody."""
    role = number_of(accounts_pb2.Role, new.role, _ROLE)
    return members_pb2.CreateInvitationRequest(email=new.email, role=role)


def invitation_from_proto(message: members_pb2.Invitation) -> Invitation:
    """The JSON of an invitation."""
    return Invitation(
        id=message.id,
        email=message.email,
        role=name_of(accounts_pb2.Role, message.role, _ROLE),
        status=_status(message),
        invited_by=message.invited_by,
        member_id=message.member_id or None,
        created_at=time_of(message.create_time),
        expires_at=time_of(message.expire_time),
    )


def with_url(message: members_pb2.CreateInvitationResponse, base_url: str) -> InvitationWithUrl:
    """The JSON of a new invitation."""
    shown = msgspec.structs.asdict(invitation_from_proto(message.invitation))
    return InvitationWithUrl(**shown, url=f"{base_url}/invitation?token={message.token}")


def _status(message: members_pb2.Invitation) -> str:
    if time_or_none(message, "accept_time"):
        return "ACCEPTED"
    if time_or_none(message, "revoke_time"):
        return "REVOKED"
    return "OPEN" if clock.now() < time_of(message.expire_time) else "EXPIRED"
