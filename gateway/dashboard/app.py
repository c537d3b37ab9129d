"""The app of the dashboard's pages, beside that of the API."""

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote, unquote

from litestar import Litestar, Request, Response
from litestar.di import Provide
from litestar.enums import RequestEncodingType
from litestar.exceptions import HTTPException
from usageflow.accounts.v1 import accounts_pb2

from gateway.api import framework_error
from gateway.calls import Calls, Services
from gateway.dashboard import assets, templates
from gateway.dashboard.forms import CSRF, Form
from gateway.dashboard.live import Streams
from gateway.dashboard.pages import (
    account,
    audit,
    charges,
    customers,
    discounts,
    events,
    invoices,
    keys,
    metrics,
    migrations,
    overview,
    payments,
    plans,
    portal_links,
    prepaid,
    settings,
    simulation,
    subscription_changes,
    subscriptions,
    taxes,
    team,
    test_clocks,
    usage,
    webhooks,
)
from gateway.dashboard.visit import Visit, html, redirect, theme_of, zone_of
from gateway.errors import to_http
from gateway.sessions import Sessions, scope_of
from gateway.wire import Header, Message, Receive, Scope, Send
from services.kit import context
from services.kit.errors import UnauthenticatedError

BODY_BYTES_MAX: Final = 256 * 1024
SIGN_IN_PATH: Final = "/sign-in"
_PAGES: Final[Sequence[Any]] = (
    assets,
    overview,
    usage,
    events,
    metrics,
    customers,
    payments,
    prepaid,
    plans,
    simulation,
    portal_links,
    migrations,
    subscriptions,
    subscription_changes,
    discounts,
    charges,
    taxes,
    invoices,
    webhooks,
    keys,
    test_clocks,
    team,
    audit,
    settings,
    account,
)

# Only what this server sends itself: nothing inline, nothing evaluated, no other address, no frame.
PAGE_HEADERS: Final[tuple[Header, ...]] = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        b"connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; "
        b"frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)


class _SignInNeeded(Exception):  # noqa: N818 (no error: the answer is the page to sign in)
    """Nobody is signed in."""


class Dashboard:
    """All pages, as an ASGI app."""

    def __init__(self, services: Services, sessions: Sessions) -> None:
        self._streams = Streams()
        self._app = _build(services, self._streams, sessions)

    def stop(self) -> None:
        """End what would not end by itself, before the server stops."""
        self._streams.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._app(scope, receive, guarded(send))  # type: ignore[arg-type]


def guarded(send: Send) -> Send:
    """What sends a page's answer, with PAGE_HEADERS."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *PAGE_HEADERS]
        await send(message)

    return sending


def _build(services: Services, streams: Streams, sessions: Sessions) -> Litestar:
    async def provide_visit(request: Request[Any, Any, Any]) -> Visit:
        scope = scope_of(request)
        viewer = await sessions.viewer(scope)
        if viewer is None:
            raise _SignInNeeded
        # For the access log.
        scope["principal"] = viewer.principal
        calls, form = Calls(services, viewer.credential), Form()
        if request.method == "POST":
            sessions.require_own_page(dict(scope["headers"]))
            if request.content_type[0] == RequestEncodingType.MULTI_PART:
                await form.fill_parts(request)
            else:
                form.fill(await request.body())
            sessions.require_csrf_token(viewer, form.get(CSRF, ""))
        name = await _organization_name(calls)
        url = sessions.base_url(scope)
        visit = Visit(viewer, calls, request, zone_of(request), form, name, url)
        request.state.visit = visit
        return visit

    async def provide_streams() -> Streams:
        return streams

    return Litestar(
        [handler for page in _PAGES for handler in page.HANDLERS],
        request_max_body_size=BODY_BYTES_MAX,
        before_request=decode_path,
        dependencies={"visit": Provide(provide_visit), "streams": Provide(provide_streams)},
        exception_handlers={
            _SignInNeeded: _go_to_sign_in,
            HTTPException: _answer_error,
            Exception: _answer_error,
        },
        openapi_config=None,
        logging_config=None,
        pdb_on_exception=False,
    )


async def _organization_name(calls: Calls) -> str:
    request = accounts_pb2.GetOrganizationRequest()
    return (await calls.call(calls.accounts.GetOrganization, request)).organization.name


async def decode_path(request: Request[Any, Any, Any]) -> None:
    """Ids may contain "/": the gateway routes by paths whose segments are percent-encoded."""
    parameters = request.scope["path_params"]
    for name, value in parameters.items():
        parameters[name] = unquote(value)


def _go_to_sign_in(request: Request[Any, Any, Any], _error: Exception) -> Response[bytes]:
    if request.method != "GET":
        return redirect(SIGN_IN_PATH)
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return redirect(f"{SIGN_IN_PATH}?next={quote(path, safe='')}")


def _answer_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    if isinstance(error, UnauthenticatedError):
        return _go_to_sign_in(request, error)
    answer = to_http(framework_error(error))
    visit = request.state.get("visit")
    body = templates.render(
        "error.html",
        visit=visit,
        viewer=visit.viewer if visit else None,
        may=visit.may if visit else None,
        path=request.url.path,
        note=None,
        theme=theme_of(request),
        status=answer.status,
        message=answer.message,
        problems=answer.problems,
        request_id=context.request_id.get(),
    )
    return html(body, answer.status)
