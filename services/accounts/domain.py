"""Organizations and API keys: what they are and what is valid. Pure."""

import hashlib
import hmac
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from services.kit.errors import FieldChecks
from services.kit.events import (
    PAST_DAYS_DEFAULT,
    PAST_DAYS_MAX,
    RETENTION_DAYS_DEFAULT,
    RETENTION_DAYS_MAX,
    RETENTION_DAYS_MIN,
)
from services.kit.keys import KEY_MODES
from services.kit.limits import (
    EVENTS_PER_S_DEFAULT,
    EVENTS_PER_S_MAX,
    NETWORKS_MAX,
    REQUESTS_PER_S_DEFAULT,
    REQUESTS_PER_S_MAX,
    networks,
)

Given = TypeVar("Given")

NAME_CHARACTERS_MAX = 200
# When a key was used last is written at most this often.
KEY_USE_WRITTEN = timedelta(minutes=1)
# How long a key goes on working after it was rotated: as long as it takes to give the new one out.
OVERLAP_DEFAULT = timedelta(days=1)
OVERLAP_MAX = timedelta(days=30)
NETWORKS_EXPECTED = (
    "must be networks such as 203.0.113.0/24 or 2001:db8::/32, with no bit set behind the prefix, "
    "or single addresses"
)
# In the order in which they are stored and shown.
SCOPES = ("track", "read", "admin")


@dataclass(frozen=True, slots=True)
class Settings:
    """What an organization decides for itself.

    `event_past_days`: how long ago an event may have happened when it is sent.
    `event_retention_days`: how long raw events and their idempotency keys are kept.
    `strict_metrics`: whether events of metrics that nobody has defined are rejected.
    `requests_per_second`, `events_per_second`: what gateways take from its keys in each mode.
    """

    event_past_days: int = PAST_DAYS_DEFAULT
    event_retention_days: int = RETENTION_DAYS_DEFAULT
    strict_metrics: bool = False
    requests_per_second: int = REQUESTS_PER_S_DEFAULT
    events_per_second: int = EVENTS_PER_S_DEFAULT


@dataclass(frozen=True, slots=True)
class Organization:
    """A tenant: the company that sells a product."""

    id: str
    name: str
    create_time: datetime
    settings: Settings = Settings()


@dataclass(frozen=True, slots=True)
class OrganizationChange:
    """What is to change; None stays as it is."""

    name: str | None = None
    event_past_days: int | None = None
    event_retention_days: int | None = None
    strict_metrics: bool | None = None
    requests_per_second: int | None = None
    events_per_second: int | None = None

    def of(self, organization: Organization) -> Organization:
        """The organization with the change made. InvalidArgumentError names all that is wrong."""
        settings = organization.settings
        changed = replace(
            organization,
            name=organization.name if self.name is None else self.name,
            settings=Settings(
                _first(self.event_past_days, settings.event_past_days),
                _first(self.event_retention_days, settings.event_retention_days),
                _first(self.strict_metrics, settings.strict_metrics),
                _first(self.requests_per_second, settings.requests_per_second),
                _first(self.events_per_second, settings.events_per_second),
            ),
        )
        check_organization(changed)
        return changed


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Where a key may be used from (nowhere named: from anywhere), and how fast (0: as fast as its
    organization may).
    """

    networks: Sequence[str] = ()
    requests_per_second: int = 0
    events_per_second: int = 0


@dataclass(frozen=True, slots=True)
class NewKey:
    """What is asked for when a key is made."""

    name: str
    scopes: Sequence[str]
    expire_time: datetime | None
    limits: KeyLimits = KeyLimits()


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What is to change of a key; None stays as it is."""

    name: str | None = None
    networks: Sequence[str] | None = None
    requests_per_second: int | None = None
    events_per_second: int | None = None

    def of(self, key: "ApiKey") -> "ApiKey":
        """The key with the change made. InvalidArgumentError names all that is wrong."""
        limits = KeyLimits(
            key.limits.networks if self.networks is None else self.networks,
            _first(self.requests_per_second, key.limits.requests_per_second),
            _first(self.events_per_second, key.limits.events_per_second),
        )
        name = key.name if self.name is None else self.name
        checks = FieldChecks()
        _check_name(checks, name)
        limits = _checked_limits(checks, limits)
        checks.done()
        return replace(key, name=name, limits=limits)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """All that is known of a key once it was made; never the key itself.

    `use_time`: when it was used last, give or take a minute; `successor_id`: the key that it was
    rotated to.
    """

    id: str
    organization_id: str
    mode: str
    name: str
    prefix: str
    scopes: tuple[str, ...]
    create_time: datetime
    expire_time: datetime | None
    revoke_time: datetime | None
    use_time: datetime | None = None
    successor_id: str | None = None
    limits: KeyLimits = field(default_factory=KeyLimits)

    def works_at(self, time: datetime) -> bool:
        """Whether the key is neither revoked nor expired at `time`."""
        if self.revoke_time is not None:
            return False
        return self.expire_time is None or time < self.expire_time


@dataclass(frozen=True, slots=True)
class ClockTime:
    """What the test clock of a customer, or ("") of all, shows; None: it has ended."""

    customer_id: str
    time: datetime | None
    revision: int


@dataclass(frozen=True, slots=True)
class ResolvedKey:
    """A key that works, and what its organization decided; of test mode also its clocks."""

    key: ApiKey
    settings: Settings
    clocks: tuple[ClockTime, ...] = ()


def hash_key(pepper: bytes, secret: str) -> bytes:
    """HMAC-SHA256 of the whole key under the server's pepper: 32 bytes.

    A key has 190 bits, so a slow hash would add nothing; the pepper makes a stolen table useless.
    """
    return hmac.digest(pepper, secret.encode(), hashlib.sha256)


def ordered_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    """`scopes` once each, in the order of SCOPES."""
    return tuple(scope for scope in SCOPES if scope in scopes)


def check_organization(organization: Organization) -> None:
    """Raise InvalidArgumentError naming all that is wrong with an organization."""
    checks = FieldChecks()
    checks.require(bool(organization.name.strip()), "name", "is required")
    _check_name(checks, organization.name)
    past = organization.settings.event_past_days
    retention = organization.settings.event_retention_days
    sound = _check_days(checks, "eventPastDays", past, PAST_DAYS_DEFAULT, PAST_DAYS_MAX)
    sound &= _check_days(
        checks, "eventRetentionDays", retention, RETENTION_DAYS_MIN, RETENTION_DAYS_MAX
    )
    # As long as an event may still be sent again, its key has to be known.
    checks.require(
        retention >= past or not sound,
        "settings.eventRetentionDays",
        f"must be at least eventPastDays, which is {past}",
    )
    rates = organization.settings
    _check_rate(checks, "settings.requestsPerSecond", rates.requests_per_second, REQUESTS_PER_S_MAX)
    _check_rate(checks, "settings.eventsPerSecond", rates.events_per_second, EVENTS_PER_S_MAX)
    checks.done()


def _check_rate(
    checks: FieldChecks, field: str, per_second: int, most: int, least: int = 1
) -> None:
    checks.require(
        least <= per_second <= most, field, f"must be a whole number from {least} to {most}"
    )


def _checked_limits(checks: FieldChecks, limits: KeyLimits) -> KeyLimits:
    """The limits as they are stored: networks once each, as the standard writes them."""
    few = len(limits.networks) <= NETWORKS_MAX
    checks.require(few, "allowedNetworks", f"must be at most {NETWORKS_MAX}")
    named: tuple[str, ...] = ()
    if few:
        try:
            named = tuple(str(each) for each in networks(limits.networks))
        except ValueError:
            checks.require(False, "allowedNetworks", NETWORKS_EXPECTED)
    requests, events = limits.requests_per_second, limits.events_per_second
    _check_rate(checks, "requestsPerSecond", requests, REQUESTS_PER_S_MAX, least=0)
    _check_rate(checks, "eventsPerSecond", events, EVENTS_PER_S_MAX, least=0)
    return replace(limits, networks=named)


def _check_days(checks: FieldChecks, name: str, days: int, least: int, most: int) -> bool:
    return checks.require(
        least <= days <= most, f"settings.{name}", f"must be from {least} to {most} days"
    )


def _first(changed: Given | None, present: Given) -> Given:
    return present if changed is None else changed


def check_new_key(new: NewKey, mode: str, now: datetime) -> KeyLimits:
    """The limits of the key asked for, as they are stored. InvalidArgumentError names all that is
    wrong with it.
    """
    checks = FieldChecks()
    _check_name(checks, new.name)
    checks.require(mode in KEY_MODES, "mode", f"must be one of {', '.join(KEY_MODES)}")
    checks.require(bool(new.scopes), "scopes", "at least one is required")
    known = all(scope in SCOPES for scope in new.scopes)
    checks.require(known, "scopes", f"must be among {', '.join(SCOPES)}")
    ahead = new.expire_time is None or new.expire_time > now
    checks.require(ahead, "expiresAt", "must lie ahead")
    limits = _checked_limits(checks, new.limits)
    checks.done()
    return limits


def _check_name(checks: FieldChecks, name: str) -> None:
    short = len(name) <= NAME_CHARACTERS_MAX
    checks.require(short, "name", f"must have at most {NAME_CHARACTERS_MAX} characters")
    checks.require(not has_control(name), "name", "must have no control characters")


def has_control(text: str) -> bool:
    """Whether it has control characters."""
    return any(unicodedata.category(character) == "Cc" for character in text)
