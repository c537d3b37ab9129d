"""Webhook endpoints, events, deliveries: what they are and what is valid. Pure."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from yarl import URL

from services.kit.database import TenantKey
from services.kit.errors import FieldChecks
from services.notifier.addresses import is_public, parse_address

URL_CHARACTERS_MAX = 2_048
DESCRIPTION_CHARACTERS_MAX = 500
ENDPOINTS_MAX = 100  # of one organization and mode: bounds the fan-out of one event
SECRETS_MAX = 10  # that sign at the same time
SECRET_OVERLAP = timedelta(hours=24)
JITTER = 0.2
REPLAY_PAUSE = timedelta(seconds=10)  # a second click within it changes nothing

TEST_EVENT_TYPE = "webhook.test"
EVENT_TYPES = (
    "invoice.created",
    "invoice.paid",
    "invoice.failed",
    "invoice.voided",
    "subscription.created",
    "subscription.changed",
    "subscription.suspended",
    "subscription.cancelled",
    "usage.threshold_reached",
    TEST_EVENT_TYPE,
)

_END_OF_AUTHORITY = re.compile(r"[/?#]")
# What parsers of URLs disagree about, so that what we check could be another host than we ask.
_NOT_IN_URL = re.compile(r"[\s\x00-\x20\x7f\\]")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where webhooks go."""

    id: str
    tenant: TenantKey
    url: str
    event_types: tuple[str, ...]
    description: str
    enabled: bool
    create_time: datetime

    def takes(self, event_type: str) -> bool:
        """Whether the endpoint subscribed to this type; no types mean all."""
        return self.enabled and (not self.event_types or event_type in self.event_types)


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """Something that happened, with the exact bytes that are signed and sent."""

    id: str
    tenant: TenantKey
    type: str
    create_time: datetime
    body: bytes


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at delivering. `response_status` is 0 when there was none, `error` "" when all is
    well, otherwise "timeout", "connection", "dns", "tls", "refused_address" or "http_status".
    """

    start_time: datetime
    duration_ms: int
    response_status: int
    error: str
    response_body: bytes
    number: int = 0


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one endpoint. `status`: pending, succeeded, failed or dropped."""

    id: str
    event_id: str
    endpoint_id: str
    event_type: str
    status: str
    next_attempt_time: datetime | None
    create_time: datetime
    attempts: tuple[Attempt, ...] = ()


def check_endpoint(
    url: str, event_types: Sequence[str], description: str, *, allow_private: bool
) -> None:
    """Raise InvalidArgumentError naming all that is wrong with an endpoint."""
    checks = FieldChecks()
    problem = url_problem(url, allow_private=allow_private)
    checks.require(not problem, "url", problem)
    unknown = sorted(set(event_types) - set(EVENT_TYPES))
    checks.require(not unknown, "events", f"must be among {', '.join(EVENT_TYPES)}")
    checks.require(
        len(description) <= DESCRIPTION_CHARACTERS_MAX,
        "description",
        f"must have at most {DESCRIPTION_CHARACTERS_MAX} characters",
    )
    printable = all(c in "\n\t" or unicodedata.category(c) != "Cc" for c in description)
    checks.require(printable, "description", "must have no control characters")
    checks.done()


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


def webhook_body(event_type: str, create_time: datetime, data_json: str) -> bytes:
    """The body that is signed and sent. ValueError unless `data_json` is a JSON object."""
    try:
        msgspec.json.decode(data_json, type=dict[str, object])
    except msgspec.DecodeError as error:
        raise ValueError("data must be a JSON object") from error
    timestamp = create_time.isoformat().replace("+00:00", "Z")
    data = msgspec.Raw(data_json.encode())
    return msgspec.json.encode({"type": event_type, "timestamp": timestamp, "data": data})


def next_attempt_time(
    delays_s: Sequence[float], step: int, now: datetime, spread: float
) -> datetime | None:
    """When the attempt at place `step` (from 0) of the schedule is due; None when there is none.

    `spread` from -1 to 1 moves it within +-20 %, so that what failed together does not return
    together.
    """
    if step >= len(delays_s):
        return None
    return now + timedelta(seconds=delays_s[step] * (1 + JITTER * spread))
