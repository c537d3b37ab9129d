"""The app of the portal's pages: a link's token becomes a cookie, which the services look up."""

from typing import Any

from litestar import Litestar, Request, Response
from litestar.di import Provide
from litestar.exceptions import HTTPException
from usageflow.accounts.v1 import portal_pb2

from gateway.api import framework_error
from gateway.calls import Calls, Services
from gateway.dashboard import templates
from gateway.dashboard.app import decode_path, guarded
from gateway.dashboard.visit import html, theme_of, zone_of
from gateway.errors import to_http
from gateway.portal import pages
from gateway.portal.visit import PATH, PortalVisit, cookie, token_of
from gateway.sessions import Sessions, scope_of
from gateway.wire import Header, Receive, Scope, Send, send_redirect
from services.kit import context
from services.kit.auth import KeyResolver, invalid_portal_link
from services.kit.errors import UnauthenticatedError
from services.kit.keys import PORTAL_START


class Portal:
    """All pages, as an ASGI app."""

    def __init__(self, services: Services, keys: KeyResolver, sessions: Sessions) -> None:
        self._services = services
        self._keys = keys
        self._secure = sessions.secure
        self._app = Litestar(
            pages.HANDLERS,
            before_request=decode_path,
            dependencies={"visit": Provide(self._visit)},
            exception_handlers={HTTPException: _answer_error, Exception: _answer_error},
            openapi_config=None,
            logging_config=None,
            pdb_on_exception=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        token = _token_in_query(scope)
        if token:
            await self._enter(scope, guarded(send), token)
        else:
            await self._app(scope, receive, guarded(send))  # type: ignore[arg-type]

    async def _enter(self, scope: Scope, send: Send, token: str) -> None:
        """Take the token out of the address: it would stand in histories and be seen."""
        try:
            principal = await self._keys.resolve(token)
        except UnauthenticatedError:
            header = cookie("", None, secure=self._secure)
        else:
            scope["principal"] = principal
            header = cookie(token, principal.expire_time, secure=self._secure)
        await send_redirect(_with(send, header), PATH)

    async def _visit(self, request: Request[Any, Any, Any]) -> PortalVisit:
        scope = scope_of(request)
        token = token_of(scope, secure=self._secure)
        if not token:
            raise invalid_portal_link()
        principal = await self._keys.resolve(token)
        # For the access log.
        scope["principal"] = principal
        calls = Calls(self._services, token)
        current = await calls.call(
            calls.portal.GetCurrentPortal, portal_pb2.GetCurrentPortalRequest()
        )
        return PortalVisit(principal, calls, request, zone_of(request), current)


def _token_in_query(scope: Scope) -> str:
    """The token of a link that is opened; "": none, or what does not even begin like one."""
    if scope["path"] != PATH or scope["method"] != "GET":
        return ""
    name, _, value = scope["query_string"].decode("latin-1").partition("=")
    return value if name == "token" and value.startswith(PORTAL_START) else ""


def _with(send: Send, header: Header) -> Send:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], header]
        await send(message)

    return sending


def _answer_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    answer = to_http(framework_error(error))
    body = templates.render(
        "portal_error.html",
        visit=None,
        theme=theme_of(request),
        status=answer.status,
        message=answer.message,
        request_id=context.request_id.get(),
    )
    return html(body, answer.status)
