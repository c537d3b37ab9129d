"""The one ASGI app: the hot path goes to bare handlers, all else to the framework."""

import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import msgspec
import structlog
from prometheus_client import Counter, Histogram

from gateway.access import Access, has_key
from gateway.api import routing_path
from gateway.errors import method_not_allowed, to_http, unavailable
from gateway.health import Readiness
from gateway.preconditions import is_known
from gateway.rates import Caller
from gateway.sessions import Sessions
from gateway.wire import (
    SECURITY_HEADERS,
    Disconnected,
    Header,
    Message,
    Receive,
    RequestIds,
    Scope,
    Send,
    send_error,
    send_json,
    send_redirect,
)
from services.kit import context
from services.kit.auth import Principal

log = structlog.get_logger()

Handler: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
OPENAPI_PATH: Final = "/api/openapi.json"
# Under these is what people look at: members, and customers with a link.
PAGES_PATH: Final = "/dashboard"
PORTAL_PATH: Final = "/portal"
_REPLAYED: Final = (b"idempotent-replayed", b"true")
_REQUESTS = Counter(
    "usageflow_gateway_requests", "Requests other than track", ["method", "route", "status"]
)
_SECONDS = Histogram("usageflow_gateway_request_seconds", "Time of requests other than track")


class Entry:
    """Dispatches, bounds what is in flight, and does for every request what none may lack."""

    def __init__(
        self,
        track: Handler,
        batch: Handler,
        api: Handler,
        pages: Handler,
        portal: Handler,
        access: Access,
        sessions: Sessions,
        readiness: Readiness,
        request_ids: RequestIds,
        requests_in_flight_max: int,
        log_track: bool = False,
    ) -> None:
        """`log_track`: whether requests to `track` and `batch` are written to the access log."""
        self._log_track = log_track
        self._bare = {"/api/track": track, "/api/track/batch": batch}
        self._api = api
        self._pages = {PAGES_PATH: pages, PORTAL_PATH: portal}
        self._access = access
        self._sessions = sessions
        self._readiness = readiness
        self._request_ids = request_ids
        self._in_flight_max = requests_in_flight_max
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        self._in_flight += 1
        try:
            bare = self._bare.get(scope["path"])
            if self._in_flight > self._in_flight_max:
                request_id = self._request_ids.take(None)
                await send_error(send, unavailable("Too many requests are running"), request_id)
            elif bare is None:
                await self._other(scope, receive, send)
            elif self._log_track:
                await self._logged(bare, scope, receive, send)
            else:
                await self._bare_answer(bare, scope, receive, send)
        finally:
            self._in_flight -= 1

    async def _bare_answer(
        self, handler: Handler, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if scope["method"] == "POST":
            await handler(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id")
        await send_error(send, method_not_allowed("POST"), self._request_ids.take(given))

    async def _logged(self, handler: Handler, scope: Scope, receive: Receive, send: Send) -> None:
        started_s = time.perf_counter()
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self._bare_answer(handler, scope, receive, noting)
        seconds = time.perf_counter() - started_s
        _log(scope["method"], scope["path"], status, scope.get("principal"), seconds)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_s = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = self._request_ids.take(headers.get(b"x-request-id"))
        context.new_request(request_id, headers.get(b"traceparent", b"").decode("latin-1"))
        answer = _Answer(scope, send, request_id)
        if scope["method"] == "GET":
            answer.if_none_match = headers.get(b"if-none-match", b"")
        principal = None
        try:
            if scope["path"] in ("/healthz", "/readyz"):
                await self._health(scope, answer, request_id)
            elif scope["path"] == "/":
                await send_redirect(answer.send, PAGES_PATH)
            elif (pages := self._pages_of(scope["path"])) is not None:
                scope["path"] = routing_path(scope["raw_path"])
                await pages(scope, receive, answer.send)
                principal = scope.get("principal")
            else:
                principal = await self._authenticate(scope, headers)
                if principal is not None:
                    answer.caller = self._access.rates.caller(principal)
                    if (beyond := answer.caller.take_request()) is not None:
                        raise beyond
                scope["path"] = routing_path(scope["raw_path"])
                await self._api(scope, receive, answer.send)
        except Disconnected:
            log.debug("client_gone")
        except Exception as error:
            if answer.status:
                raise
            await send_error(answer.send, to_http(error), request_id)
        _note(scope, answer.status, principal, time.perf_counter() - started_s)

    async def _authenticate(self, scope: Scope, headers: dict[bytes, bytes]) -> Principal | None:
        """Who calls /api/*; the services check the key or session and what it may do again."""
        scope["sessions"] = self._sessions
        if not scope["path"].startswith("/api/") or scope["path"] == OPENAPI_PATH:
            return None
        if not has_key(headers):
            member = await self._sessions.member(scope, headers)
            if member is not None:
                scope["credential"] = member.credential
                return member.principal
        return await self._access.principal(scope, headers)

    def _pages_of(self, path: str) -> Handler | None:
        return self._pages.get("/" + path[1:].partition("/")[0])

    async def _health(self, scope: Scope, answer: "_Answer", request_id: str) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            raise method_not_allowed("GET, HEAD")
        missing = await self._readiness.missing() if scope["path"] == "/readyz" else []
        status = 503 if missing else 200
        body = {"status": "not ready", "missing": missing} if missing else {"status": "ok"}
        await send_json(answer.send, status, msgspec.json.encode(body), request_id)


class _Answer:
    """Adds the headers that every answer has, and notes the status."""

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self._scope = scope
        self._send = send
        self._request_id = request_id.encode()
        self.status = 0
        self.if_none_match = b""
        self.caller: Caller | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message["headers"])
            if self.if_none_match and self.status == 200 and self._is_known(headers):
                self.status = message["status"] = 304
                headers = [header for header in headers if not header[0].startswith(b"content-")]
            present = {name for name, _value in headers}
            always: tuple[Header, ...] = (*SECURITY_HEADERS, (b"x-request-id", self._request_id))
            if "calls" in self._scope and self._scope["calls"].replayed:
                always = (*always, _REPLAYED)
            headers += [header for header in always if header[0] not in present]
            if self.caller is not None:
                told = self.caller.head().items()
                headers += [(name.encode(), value.encode()) for name, value in told]
            message["headers"] = headers
        elif self.status == 304:
            message["body"] = b""
        await self._send(message)

    def _is_known(self, headers: list[Header]) -> bool:
        """Whether the caller has this answer already, by its ETag."""
        tag = dict(headers).get(b"etag")
        return tag is not None and is_known(tag, self.if_none_match)


def _note(scope: Scope, status: int, principal: Principal | None, seconds: float) -> None:
    """Metrics and access log: never a key, nor a path or query, which may name a customer."""
    route = scope.get("path_template") or "none"
    _REQUESTS.labels(scope["method"], route, str(status)).inc()
    _SECONDS.observe(seconds)
    if scope["path"] in ("/healthz", "/readyz"):
        return
    _log(scope["method"], route, status, principal, seconds)


def _log(method: str, route: str, status: int, principal: Principal | None, seconds: float) -> None:
    log.info(
        "request",
        method=method,
        route=route,
        status=status,
        ms=round(seconds * 1_000, 1),
        organization_id=principal.organization_id if principal else None,
        mode=principal.mode_name if principal else None,
    )
