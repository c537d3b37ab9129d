"""What an endpoint may be registered with. Pure."""

import re
import unicodedata
from collections.abc import Mapping, Sequence

from yarl import URL

from services.kit.errors import FieldChecks
from services.notifier.addresses import is_public, parse_address
from services.notifier.filters import EVENT_TYPES, PATTERNS_MAX, unknown_patterns

URL_CHARACTERS_MAX = 2_048
DESCRIPTION_CHARACTERS_MAX = 500
RATE_LIMIT_MAX = 1_000  # webhooks a second
HEADERS_MAX = 20
HEADER_NAME_CHARACTERS_MAX = 100
HEADER_VALUE_CHARACTERS_MAX = 1_000

_END_OF_AUTHORITY = re.compile(r"[/?#]")
# What parsers of URLs disagree about, so that what we check could be another host than we ask.
_NOT_IN_URL = re.compile(r"[\s\x00-\x20\x7f\\]")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # token (RFC 9110, 5.6.2)
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")

# Ours, those that frame or route a request (RFC 9110, 9112), those that tell a receiver who is
# asking, and those that open cloud metadata services to whoever can make a server send them.
_DENIED_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "date",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "metadata",
        "metadata-flavor",
        "range",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
        "x-real-ip",
    }
)
_DENIED_PREFIXES = (
    "proxy-",
    "sec-",
    "svix-",
    "webhook-",
    "x-aws-ec2-",
    "x-forwarded-",
    "x-google-",
    "x-http-method",
    "x-usageflow-",
)


def check_url(checks: FieldChecks, url: str, *, allow_private: bool) -> None:
    """Note what is wrong with an endpoint's URL."""
    problem = url_problem(url, allow_private=allow_private)
    checks.require(not problem, "url", problem)


def url_problem(url: str, *, allow_private: bool) -> str:
    """What is wrong with an endpoint's URL; "" when nothing is.

    A host name is checked when it is resolved, before each connection (sender.py).
    """
    if not url:
        return "is required"
    if len(url) > URL_CHARACTERS_MAX:
        return f"must have at most {URL_CHARACTERS_MAX} characters"
    if _NOT_IN_URL.search(url):
        return "must have no spaces, backslashes or control characters"
    try:
        parsed = URL(url)
        host, port = parsed.host, parsed.port
    except ValueError:
        return "must be a URL"
    schemes = ("https", "http") if allow_private else ("https",)
    if parsed.scheme not in schemes:
        return f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}"
    if not host or not port:
        return "must name a host"
    if "@" in _END_OF_AUTHORITY.split(url.partition("//")[2], maxsplit=1)[0]:
        return "must not carry a user or password"
    if "#" in url:
        return "must have no fragment"
    address = parse_address(host)
    local = host == "localhost" or (address is not None and not is_public(address))
    return "must be a public address" if local and not allow_private else ""


def check_event_types(checks: FieldChecks, patterns: Sequence[str]) -> None:
    """Note what is wrong with the patterns that an endpoint subscribes with."""
    checks.require(len(patterns) <= PATTERNS_MAX, "events", f"must be at most {PATTERNS_MAX}")
    checks.require(
        not unknown_patterns(patterns),
        "events",
        f"must be among {', '.join(EVENT_TYPES)}, or take some of them with *, as invoice.* does",
    )


def check_description(checks: FieldChecks, description: str) -> None:
    """Note what is wrong with a description."""
    checks.require(
        len(description) <= DESCRIPTION_CHARACTERS_MAX,
        "description",
        f"must have at most {DESCRIPTION_CHARACTERS_MAX} characters",
    )
    printable = all(c in "\n\t" or unicodedata.category(c) != "Cc" for c in description)
    checks.require(printable, "description", "must have no control characters")


def check_rate_limit(checks: FieldChecks, rate_limit: int) -> None:
    """Note what is wrong with a number of webhooks a second; 0 is no limit."""
    allowed = f"must be from 1 to {RATE_LIMIT_MAX} a second, or 0 for no limit"
    checks.require(0 <= rate_limit <= RATE_LIMIT_MAX, "rateLimit", allowed)


def check_headers(checks: FieldChecks, headers: Mapping[str, str]) -> None:
    """Note what is wrong with the headers of a customer's own."""
    checks.require(len(headers) <= HEADERS_MAX, "headers", f"must be at most {HEADERS_MAX}")
    once = len({name.lower() for name in headers}) == len(headers)
    checks.require(once, "headers", "must name each header once, in whatever case")
    for name, value in headers.items():
        problem = _header_problem(name, value)
        checks.require(not problem, f"headers[{name[:HEADER_NAME_CHARACTERS_MAX]}]", problem)


def _header_problem(name: str, value: str) -> str:
    if len(name) > HEADER_NAME_CHARACTERS_MAX or not _HEADER_NAME.fullmatch(name):
        return f"must have a name of 1 to {HEADER_NAME_CHARACTERS_MAX} letters, digits and hyphens"
    if name.lower() in _DENIED_HEADERS or name.lower().startswith(_DENIED_PREFIXES):
        return "is a header that can't be chosen"
    if len(value) > HEADER_VALUE_CHARACTERS_MAX or not _HEADER_VALUE.fullmatch(value):
        return (
            f"must have a value of 1 to {HEADER_VALUE_CHARACTERS_MAX} printable ASCII characters,"
            " without spaces around"
        )
    return ""
