"""Organizations and API keys: what they are and what is valid. Pure."""

import hashlib
import hmac
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
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

Given = TypeVar("Given")

NAME_CHARACTERS_MAX = 200
# When a key was used last is written at most this often.
KEY_USE_WRITTEN = timedelta(minutes=1)
# How long a key goes on working after it was rotated: as long as it takes to give the new one out.
OVERLAP_DEFAULT = timedelta(days=1)
OVERLAP_MAX = timedelta(days=30)
# In the order in which they are stored and shown.
SCOPES = ("track", "read", "admin")


@dataclass(frozen=True, slots=True)
class Settings:
    """What an organization decides for itself.

    `event_past_days`: how long ago an event may have happened when it is sent.
    `event_retention_days`: how long raw events and their idempotency keys are kept.
    `strict_metrics`: whether events of metrics that nobody has defined are rejected.
    """

    event_past_days: int = PAST_DAYS_DEFAULT
    event_retention_days: int = RETENTION_DAYS_DEFAULT
    strict_metrics: bool = False


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
            ),
        )
        check_organization(changed)
        return changed


@dataclass(frozen=True, slots=True)
class NewKey:
    """What is asked for when a key is made."""

    name: str
    scopes: Sequence[str]
    expire_time: datetime | None


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
    checks.done()


def _check_days(checks: FieldChecks, name: str, days: int, least: int, most: int) -> bool:
    return checks.require(
        least <= days <= most, f"settings.{name}", f"must be from {least} to {most} days"
    )


def _first(changed: Given | None, present: Given) -> Given:
    return present if changed is None else changed


def check_new_key(new: NewKey, mode: str, now: datetime) -> None:
    """Raise InvalidArgumentError naming all that is wrong with the key asked for."""
    checks = FieldChecks()
    _check_name(checks, new.name)
    checks.require(mode in KEY_MODES, "mode", f"must be one of {', '.join(KEY_MODES)}")
    checks.require(bool(new.scopes), "scopes", "at least one is required")
    known = all(scope in SCOPES for scope in new.scopes)
    checks.require(known, "scopes", f"must be among {', '.join(SCOPES)}")
    ahead = new.expire_time is None or new.expire_time > now
    checks.require(ahead, "expiresAt", "must lie ahead")
    checks.done()


def _check_name(checks: FieldChecks, name: str) -> None:
    short = len(name) <= NAME_CHARACTERS_MAX
    checks.require(short, "name", f"must have at most {NAME_CHARACTERS_MAX} characters")
    checks.require(not has_control(name), "name", "must have no control characters")


def has_control(text: str) -> bool:
    """Whether it has control characters."""
    return any(unicodedata.category(character) == "Cc" for character in text)
