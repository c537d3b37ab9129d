"""/docs: the API's reference for people."""

from importlib import resources
from typing import Any, Final

from litestar import Request, Response, get

from gateway.docs.description import description_of
from gateway.docs.page import STYLE_PATH

# Nothing but its own style sheet is loaded; nothing runs, is sent or framed.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "referrer-policy": "no-referrer",
}
_STYLE: Final = resources.files("gateway.docs").joinpath("style.css").read_bytes()


@get("/docs", include_in_schema=False)
async def get_docs(request: Request[Any, Any, Any]) -> Response[str]:
    """The reference, one page; it takes no key."""
    description = await description_of(request.app)
    return Response(description.page, media_type="text/html", headers=_HEADERS)


@get(STYLE_PATH, include_in_schema=False)
async def get_docs_style() -> Response[bytes]:
    """What the page looks like."""
    return Response(_STYLE, media_type="text/css", headers=_HEADERS)


HANDLERS = [get_docs, get_docs_style]
