"""/sign-in, /sign-out, /mode: pages and forms for people

A sign-in link opens a page with a button, and only the button uses the link up: programs that look
at links in messages press no buttons.
"""

from html import escape
from typing import Any, Final

import msgspec
from litestar import Request, Response, get, post

from gateway.errors import HttpError, from_domain
from gateway.forms import FORM, read_form
from gateway.pages import local_path, page, redirect
from gateway.query import Asked, query
from gateway.sessions import Viewer, scope_of, sessions_of, viewer
from services.kit.errors import DomainError, UnauthenticatedError, UnavailableError
from services.kit.keys import KEY_MODES

HOME: Final = "/dashboard"


class SignInQuery(msgspec.Struct):
    """What a sign-in link carries."""

    token: str = ""
    next: str = ""


@get("/sign-in", dependencies=query(SignInQuery), include_in_schema=False)
async def sign_in_page(request: Request[Any, Any, Any], asked: Asked[SignInQuery]) -> Response[Any]:
    """Ask for what proves who somebody is; say who has signed in already."""
    if asked.token:
        return page("Sign in", _link_form(asked.token, asked.next))
    if (asking := await viewer(request)) is not None:
        return page("Signed in", _signed_in(asking))
    return page("Sign in", _password_form(asked.next))


@post("/sign-in", status_code=303, include_in_schema=False, opt={FORM: True})
async def sign_in(request: Request[Any, Any, Any]) -> Response[Any]:
    """Begin a session."""
    form = await read_form(request)
    sessions = sessions_of(request)
    sessions.require_own_page(dict(scope_of(request)["headers"]))
    following = form.get("next", "")
    try:
        cookie = await sessions.sign_in(
            scope_of(request),
            link_token=form.get("token", ""),
            email=form.get("email", ""),
            password=form.get("password", ""),
        )
    except DomainError as error:
        return _refused(error, following)
    return redirect(local_path(following, HOME), [cookie])


@post("/sign-out", status_code=303, include_in_schema=False, opt={FORM: True})
async def sign_out(request: Request[Any, Any, Any]) -> Response[Any]:
    """End the session."""
    sessions = sessions_of(request)
    asking = await require_form(request)
    return redirect("/sign-in", [await sessions.sign_out(asking)])


@post("/mode", status_code=303, include_in_schema=False, opt={FORM: True})
async def switch_mode(request: Request[Any, Any, Any]) -> Response[Any]:
    """Go on in the other mode."""
    asking = await require_form(request)
    form = await read_form(request)
    mode = form.get("mode", "")
    if mode not in KEY_MODES:
        raise HttpError(400, "invalid_argument", "mode must be live or test")
    cookie = sessions_of(request).in_mode(asking, mode)
    return redirect(local_path(form.get("next", ""), HOME), [cookie])


async def require_form(request: Request[Any, Any, Any]) -> Viewer:
    """The viewer who sent a form of ours. UnauthenticatedError, PermissionDeniedError."""
    sessions = sessions_of(request)
    asking = await sessions.viewer(scope_of(request))
    if asking is None:
        raise UnauthenticatedError("Sign in first", reason="invalid_session")
    sessions.require_own_page(dict(scope_of(request)["headers"]))
    form = await read_form(request)
    sessions.require_csrf_token(asking, form.get("csrf", ""))
    return asking


def _refused(error: DomainError, following: str) -> Response[Any]:
    answer = from_domain(error)
    if isinstance(error, UnavailableError):
        answer.message = "Signing in is not possible right now; try again in a moment"
    problem = f'<p role="alert">{escape(answer.message)}</p>'
    response = page("Sign in", problem + _password_form(following), status=answer.status)
    response.headers.update(answer.headers)
    return response


def _link_form(token: str, following: str) -> str:
    return (
        "<p>This link works once.</p>"
        f'<form method="post" action="/sign-in">{hidden("token", token)}'
        f"{hidden('next', following)}<button>Sign in</button></form>"
    )


def _password_form(following: str) -> str:
    return (
        f'<form method="post" action="/sign-in">{hidden("next", following)}'
        '<p><label>Email <input name="email" type="email" autocomplete="username" required>'
        '</label></p><p><label>Password <input name="password" type="password"'
        ' autocomplete="current-password" required></label></p><button>Sign in</button></form>'
        "<p>No password yet? Use a sign-in link: <code>usageflow up</code> prints one, and"
        " <code>usageflow create-sign-in-link</code> makes one. Then set a password in Settings,"
        " You.</p>"
    )


def _signed_in(asking: Viewer) -> str:
    csrf = hidden("csrf", asking.csrf_token)
    return (
        f"<p>You are {escape(asking.name)}, {asking.role.lower()}, in {asking.mode} mode.</p>"
        f'<p><a href="{HOME}">To the dashboard</a></p>'
        f'<form method="post" action="/sign-out">{csrf}<button>Sign out</button></form>'
    )


def hidden(name: str, value: str) -> str:
    """A form's field that nobody sees."""
    return f'<input type="hidden" name="{name}" value="{escape(value)}">'


HANDLERS = [sign_in_page, sign_in, sign_out, switch_mode]
