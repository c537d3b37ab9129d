"""/invitation: the page behind an invitation's link"""

from html import escape
from typing import Any

import msgspec
from litestar import Request, Response, get, post

from gateway.errors import from_domain
from gateway.forms import FORM, read_form
from gateway.pages import page, redirect
from gateway.query import Asked, query
from gateway.routes.sign_in import HOME, hidden
from gateway.sessions import scope_of, sessions_of
from services.kit.errors import DomainError, UnauthenticatedError


class InvitationQuery(msgspec.Struct):
    """What an invitation's link carries."""

    token: str = ""


@get("/invitation", dependencies=query(InvitationQuery), include_in_schema=False)
async def invitation_page(
    request: Request[Any, Any, Any], asked: Asked[InvitationQuery]
) -> Response[Any]:
    """Say what is offered, and ask who accepts it; nothing is used up."""
    return await _form(request, asked.token)


@post("/invitation", status_code=303, include_in_schema=False, opt={FORM: True})
async def accept_invitation(request: Request[Any, Any, Any]) -> Response[Any]:
    """Become a member."""
    form = await read_form(request)
    sessions = sessions_of(request)
    sessions.require_own_page(dict(scope_of(request)["headers"]))
    token, name = form.get("token", ""), form.get("name", "")
    try:
        cookie = await sessions.accept_invitation(
            scope_of(request), token, name=name, password=form.get("password", "")
        )
    except DomainError as error:
        return await _form(request, token, name, error)
    return redirect(HOME, [cookie])


async def _form(
    request: Request[Any, Any, Any], token: str, name: str = "", problem: DomainError | None = None
) -> Response[Any]:
    """The page, again with what was wrong; without a form when there is nothing to accept."""
    try:
        offer = await sessions_of(request).invitation(token)
    except DomainError as error:
        answer = from_domain(error)
        shown = error.message if isinstance(error, UnauthenticatedError) else answer.message
        return page("Invitation", f'<p role="alert">{escape(shown)}</p>', status=answer.status)
    wrong, status = "", 200
    if problem is not None:
        answer = from_domain(problem)
        wrong, status = f'<p role="alert">{escape(answer.message)}</p>', answer.status
    body = (
        f"{wrong}<p>You are invited to {escape(offer.organization_name)} as"
        f" {escape(offer.invitation.email)}.</p>"
        f'<form method="post" action="/invitation">{hidden("token", token)}'
        f'<p><label>Your name <input name="name" value="{escape(name)}" maxlength="200"'
        ' autocomplete="name" required></label></p>'
        "<p><label>Password (12 characters or more; may be set later)"
        ' <input name="password" type="password" autocomplete="new-password"></label></p>'
        "<button>Join</button></form>"
    )
    return page("Invitation", body, status=status)


HANDLERS = [invitation_page, accept_invitation]
