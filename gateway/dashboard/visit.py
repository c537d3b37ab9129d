"""One request of one viewer: what a page's handler gets, and how it answers."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias
from zoneinfo import ZoneInfo

from litestar import Request, Response
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from gateway.calls import Calls
from gateway.dashboard import templates
from gateway.dashboard.forms import Form
from gateway.sessions import Viewer
from services.kit import clock, permissions
from services.kit.permissions import Permission

ZONE_COOKIE: Final = "uf_timezone"
THEME_COOKIE: Final = "uf_theme"
_ZONE_CHARS_MAX: Final = 64
_HTML: Final = "text/html; charset=utf-8"

# What a page may say at its top after it was redirected to; only these, never a text from outside.
NOTES: Final[Mapping[str, str]] = {
    "saved": "Saved.",
    "created": "Created.",
    "deleted": "Deleted.",
    "link-revoked": "The link was revoked. It works no more.",
    "revoked": "The key was revoked. Requests with it are refused from now on.",
    "paid": "The invoice was marked as paid.",
    "collecting": "The payment is being tried; what came of it appears below.",
    "failed": "The failed payment was recorded.",
    "voided": "Voided. It stays in the records and is no longer billed.",
    "credited": "The credit note was issued.",
    "granted": "The credit was granted. It pays the next invoices.",
    "debited": "The credit was taken off.",
    "grant-voided": "The grant was voided; what was left of it is taken back.",
    "password-set": "The password was set. Other browsers have to sign in again.",
    "subscribed": "The customer is subscribed. Usage is billed from now on.",
    "cancelled": "The subscription was cancelled.",
    "uncancelled": "The cancellation was withdrawn.",
    "changed": "The subscription was changed.",
    "paused": "The subscription is paused: nothing of that time is billed.",
    "resumed": "The subscription is active again.",
    "advancing": "The test clock goes on. It is ready when all that is due is done.",
    "clock-ended": "The test clock has ended.",
    "replayed": "Sent again; the new attempt appears below.",
    "replaying": "The deliveries are being sent again.",
    "tested": "A test event is on its way; it appears below.",
    "invited": "The invitation was made.",
    "signed-out": "Signed out there.",
    "removed": "The member was removed.",
}

_MAY: Final[Mapping[str, Permission]] = {
    "metrics": permissions.METRICS,
    "billing": permissions.BILLING,
    "keys": permissions.INTEGRATIONS,
    "webhooks": permissions.INTEGRATIONS,
    "organization": permissions.ORGANIZATION,
    "invitations": permissions.INVITATIONS,
    "members": permissions.MEMBERS,
}


@dataclass(frozen=True, slots=True)
class Visit:
    """A viewer's request. `base_url` is where people find this server, for links and examples."""

    viewer: Viewer
    calls: Calls
    request: Request[Any, Any, Any]
    zone: ZoneInfo
    form: Form
    organization_name: str
    base_url: str
    now: datetime = field(default_factory=clock.now)

    def may(self, capability: str) -> bool:
        """Whether the viewer's role lets them change such things; `capability` is one of _MAY.

        The services decide; here it is only decided which controls a page shows.
        """
        return self.viewer.may(_MAY[capability])

    def require(self, capability: str) -> None:
        """Show a form only to those who may send it; PermissionDeniedError."""
        if not self.may(capability):
            raise permissions.missing_role(self.viewer.principal, _MAY[capability])

    def page(self, template: str, status: int = 200, **context: Any) -> Response[bytes]:
        """A whole page."""
        return html(self.fragment(template, **context), status)

    def fragment(self, template: str, **context: Any) -> bytes:
        """The template, which knows this visit."""
        query = self.request.query_params
        return templates.render(
            template,
            visit=self,
            viewer=self.viewer,
            may=self.may,
            path=self.request.url.path,
            query=query,
            note=NOTES.get(query.get("note", "")),
            theme=theme_of(self.request),
            base_url=self.base_url,
            form=context.pop("form", self.form),
            **context,
        )

    def go(self, path: str, note: str = "") -> Response[bytes]:
        """Send the browser on after something was done; `note` is one of NOTES."""
        assert not note or note in NOTES
        target = f"{path}{'&' if '?' in path else '?'}note={note}" if note else path
        return redirect(target)

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


# What the framework gives to a handler. It is ours, and right: the framework would look through all
# types inside of it, some of which it does not know.
Visited: TypeAlias = NamedDependency[SkipValidation[Visit]]


def html(body: bytes, status: int = 200) -> Response[bytes]:
    """A page."""
    return Response(body, status_code=status, media_type=_HTML)


def redirect(path: str) -> Response[bytes]:
    """Go on there by GET."""
    assert path.startswith("/")
    return Response(b"", status_code=303, media_type=_HTML, headers={"location": path})


def zone_of(request: Request[Any, Any, Any]) -> ZoneInfo:
    """The viewer's time zone, which the script has told by a cookie; UTC until then."""
    name = request.cookies.get(ZONE_COOKIE, "")[:_ZONE_CHARS_MAX].replace("%2F", "/")
    try:
        return ZoneInfo(name or "UTC")
    except (KeyError, ValueError, OSError):
        return ZoneInfo("UTC")


def theme_of(request: Request[Any, Any, Any]) -> str:
    """ "light" or "dark" when the viewer chose it, else "": as the system has it."""
    theme = request.cookies.get(THEME_COOKIE, "")
    return theme if theme in ("light", "dark") else ""


def new_key() -> str:
    """An idempotency key for a form, so that sending it twice does it once."""
    return secrets.token_urlsafe(18)
