"""Pages for people: the few headers that every one of them has."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from litestar import Response

from gateway.dashboard import assets
from gateway.wire import Header

# Nothing from elsewhere, nothing inline, in nobody's frame.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
PAGE_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    # A link's token is in the address of a page. Without any referrer browsers would send forms
    # with "Origin: null", which says nothing.
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
}


def page(title: str, body: str, *, status: int = 200) -> Response[bytes]:
    """A whole page; `body` is HTML, in which everything from outside is escaped."""
    html = (
        '<!doctype html>\n<html lang="en" class="no-script" data-zone=""><head>'
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="robots" content="noindex"><title>{escape(title)} · UsageFlow</title>'
        f'<link rel="icon" href="{assets.url("mark.svg")}" type="image/svg+xml">'
        f'<link rel="stylesheet" href="{assets.url("app.css")}">'
        f'<script src="{assets.url("app.js")}" defer></script></head>'
        '<body data-method="GET"><main class="lone"><div>'
        f'<p class="brand"><img src="{assets.url("mark.svg")}" alt="" width="22" height="22">'
        f'UsageFlow</p><div class="card"><div class="body"><h1>{escape(title)}</h1>{body}'
        "</div></div></div></main></body></html>\n"
    )
    return Response(
        html.encode(),
        status_code=status,
        media_type="text/html",
        headers=dict(PAGE_HEADERS),
    )


def redirect(path: str, more: Sequence[Header] = ()) -> Response[bytes]:
    """Go on to a page of ours, by GET."""
    headers = {name.decode(): value.decode() for name, value in more}
    return Response(b"", status_code=303, headers={"location": path} | headers)


def local_path(path: str, otherwise: str) -> str:
    """`path` when it leads to a page of ours: nobody is sent elsewhere by a link that looks like
    ours.
    """
    local = path.startswith("/") and not path.startswith("//") and "\\" not in path
    return path if local and path.isascii() and path.isprintable() else otherwise
