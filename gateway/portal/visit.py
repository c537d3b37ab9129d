"""One request of somebody with a link to the customer portal."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias
from zoneinfo import ZoneInfo

from litestar import Request, Response
from litestar.di import NamedDependency
from litestar.params import SkipValidation
from usageflow.accounts.v1 import portal_pb2

from gateway.calls import Calls
from gateway.dashboard import templates
from gateway.dashboard.visit import html, theme_of
from gateway.wire import Header, Scope
from services.kit import clock
from services.kit.auth import Principal
from services.kit.keys import PORTAL_START

PATH: Final = "/portal"
COOKIE: Final = "usageflow-portal"
# A browser takes a cookie of this name only over https, for this host alone, for all of its paths.
SECURE_COOKIE: Final = f"__Host-{COOKIE}"


@dataclass(frozen=True, slots=True)
class PortalVisit:
    """A request; `portal` says whose usage and invoices it is about."""

    principal: Principal
    calls: Calls
    request: Request[Any, Any, Any]
    zone: ZoneInfo
    portal: portal_pb2.GetCurrentPortalResponse
    now: datetime = field(default_factory=clock.now)

    def page(self, template: str, status: int = 200, **context: Any) -> Response[bytes]:
        """A whole page."""
        body = templates.render(
            template,
            visit=self,
            portal=self.portal,
            path=self.request.url.path,
            query=self.request.query_params,
            theme=theme_of(self.request),
            **context,
        )
        return html(body, status)

    @property
    def customer_id(self) -> str:
        """Whose portal it is."""
        return str(self.portal.customer_id)

    @property
    def today(self) -> datetime:
        """When the viewer's day began."""
        return self.now.astimezone(self.zone).replace(hour=0, minute=0, second=0, microsecond=0)

    @property
    def month(self) -> datetime:
        """When the viewer's month began."""
        return self.today.replace(day=1)

    def days_ago(self, days: int) -> datetime:
        """When the viewer's day so many days ago began."""
        return (self.today - timedelta(days=days)).replace(hour=0)


# What the framework gives to a handler; it has nothing to look through in it (dashboard/visit.py).
Visited: TypeAlias = NamedDependency[SkipValidation[PortalVisit]]


def token_of(scope: Scope, *, secure: bool) -> str:
    """The link's token that the browser has; "": none."""
    wanted = SECURE_COOKIE if secure else COOKIE
    sent: bytes = dict(scope["headers"]).get(b"cookie", b"")
    for part in sent.decode("latin-1").split(";"):
        name, _, value = part.strip().partition("=")
        if name == wanted and value.startswith(PORTAL_START):
            return value
    return ""


def cookie(token: str, expire_time: datetime | None, *, secure: bool) -> Header:
    """The header that keeps the token in the browser, or takes it away when it is ""."""
    seconds = 0
    if token and expire_time is not None:
        seconds = max(0, int((expire_time - clock.now()).total_seconds()))
    name, more = (SECURE_COOKIE, "; Secure") if secure else (COOKIE, "")
    text = f"{name}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{more}"
    return b"set-cookie", text.encode()
