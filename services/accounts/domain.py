"""Organizations and API keys: what they are and what is valid. Pure."""

import hashlib
import hmac
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.kit.errors import FieldChecks
from services.kit.keys import KEY_MODES

NAME_CHARACTERS_MAX = 200
# In the order in which they are stored and shown.
SCOPES = ("track", "read", "admin")


@dataclass(frozen=True, slots=True)
class Organization:
    """A tenant: the company that sells a product."""

    id: str
    name: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class NewKey:
    """What is asked for when a key is made."""

    name: str
    scopes: Sequence[str]
    expire_time: datetime | None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """All that is known of a key once it was made; never the key itself."""

    id: str
    organization_id: str
    mode: str
    name: str
    prefix: str
    scopes: tuple[str, ...]
    create_time: datetime
    expire_time: datetime | None
    revoke_time: datetime | None

    def works_at(self, time: datetime) -> bool:
        """Whether the key is neither revoked nor expired at `time`."""
        if self.revoke_time is not None:
            return False
        return self.expire_time is None or time < self.expire_time


def hash_key(pepper: bytes, secret: str) -> bytes:
    """HMAC-SHA256 of the whole key under the server's pepper: 32 bytes.

    A key has 190 bits, so a slow hash would add nothing; the pepper makes a stolen table useless.
    """
    return hmac.digest(pepper, secret.encode(), hashlib.sha256)


def ordered_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    """`scopes` once each, in the order of SCOPES."""
    return tuple(scope for scope in SCOPES if scope in scopes)


def check_organization_name(name: str) -> None:
    """Raise InvalidArgumentError unless `name` can be an organization's."""
    checks = FieldChecks()
    checks.require(bool(name.strip()), "name", "is required")
    _check_name(checks, name)
    checks.done()


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
    printable = not any(unicodedata.category(character) == "Cc" for character in name)
    checks.require(printable, "name", "must have no control characters")
