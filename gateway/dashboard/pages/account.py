"""/dashboard/settings/you"""

from litestar import Response, get, post
from usageflow.accounts.v1 import members_pb2

from gateway.dashboard.forms import Form
from gateway.dashboard.visit import Visit, Visited
from gateway.shapes import people
from gateway.shapes.members import Member, member_from_proto
from gateway.shapes.people import NewPassword, OwnChange
from services.kit.errors import DomainError


@get("/dashboard/settings/you", include_in_schema=False)
async def show_account(visit: Visited) -> Response[bytes]:
    """Name, address and password of the viewer."""
    member = await _member(visit)
    return _page(visit, member, Form([("name", member.name), ("email", member.email)]))


@post("/dashboard/settings/you", include_in_schema=False)
async def change_account(visit: Visited) -> Response[bytes]:
    """Change name and address."""
    try:
        change = people.own_change_to_proto(visit.form.read(OwnChange))
        await visit.calls.call(visit.calls.members.UpdateCurrentMember, change)
    except DomainError as error:
        visit.form.refuse(error)
        return _page(visit, await _member(visit), visit.form, 400)
    return visit.go("/dashboard/settings/you", "saved")


@post("/dashboard/settings/you/password", include_in_schema=False)
async def set_password(visit: Visited) -> Response[bytes]:
    """Set the password to sign in with; other browsers have to sign in again."""
    try:
        new = visit.form.read(NewPassword)
        request = members_pb2.SetPasswordRequest(
            password=new.password, current_password=new.current_password
        )
        await visit.calls.call(visit.calls.members.SetPassword, request)
    except DomainError as error:
        member = await _member(visit)
        form = Form([("name", member.name), ("email", member.email), ("password", "")])
        form.refuse(error)
        return _page(visit, member, form, 400)
    return visit.go("/dashboard/settings/you", "password-set")


async def _member(visit: Visit) -> Member:
    request = members_pb2.GetCurrentMemberRequest()
    answer = await visit.calls.call(visit.calls.members.GetCurrentMember, request)
    return member_from_proto(answer.member)


def _page(visit: Visit, member: Member, form: Form, status: int = 200) -> Response[bytes]:
    return visit.page("account.html", status, form=form, member=member)


HANDLERS = [show_account, change_account, set_password]
