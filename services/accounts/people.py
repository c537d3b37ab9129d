"""Members, their sessions, and links that work once: what they are and what is valid. Pure."""

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.kit.errors import FieldChecks
from services.kit.permissions import ROLES

NAME_CHARACTERS_MAX = 200
EMAIL_CHARACTERS_MAX = 254
ADDRESS_CHARACTERS_MAX = 64
USER_AGENT_CHARACTERS_MAX = 400
LINK_LIFE = timedelta(hours=24)
# A session ends after this time, used or not, and earlier when it was not used for a week.
SESSION_LIFE = timedelta(days=30)
SESSION_IDLE_MAX = timedelta(days=7)
# When a session was used last is written at most this often.
SESSION_USE_WRITTEN = timedelta(minutes=5)
SESSIONS_PER_MEMBER_MAX = 50
# Ended sessions are kept for so long.
SESSION_KEPT = timedelta(days=90)
_EMAIL = re.compile(r"[^\s@]+@[^\s@]+")


@dataclass(frozen=True, slots=True)
class Member:
    """A person in an organization. `password_hash` None: they have set no password."""

    id: str
    organization_id: str
    email: str
    name: str
    role: str
    password_hash: str | None
    create_time: datetime
    sign_in_time: datetime | None
    remove_time: datetime | None


@dataclass(frozen=True, slots=True)
class Session:
    """One place where a member is signed in; `address` and `user_agent` say where."""

    id: str
    member_id: str
    create_time: datetime
    use_time: datetime
    expire_time: datetime
    end_time: datetime | None
    address: str
    user_agent: str

    def works_at(self, time: datetime) -> bool:
        """Whether it has neither ended nor expired at `time`."""
        if self.end_time is not None or time >= self.expire_time:
            return False
        return time < self.use_time + SESSION_IDLE_MAX


@dataclass(frozen=True, slots=True)
class Seen:
    """Where somebody signs in from, as far as anybody knows."""

    address: str = ""
    user_agent: str = ""

    def shortened(self) -> "Seen":
        """What may be stored of it."""
        return Seen(
            _printable(self.address)[:ADDRESS_CHARACTERS_MAX],
            _printable(self.user_agent)[:USER_AGENT_CHARACTERS_MAX],
        )


def normal_email(email: str) -> str:
    """An address as it is stored and compared."""
    return unicodedata.normalize("NFC", email.strip()).lower()


def check_email(checks: FieldChecks, email: str) -> None:
    """Note what is wrong with a normal address. That somebody reads it, nobody can tell."""
    fits = len(email) <= EMAIL_CHARACTERS_MAX and _EMAIL.fullmatch(email) is not None
    checks.require(
        fits and email == _printable(email),
        "email",
        f"must be an address with one @, of at most {EMAIL_CHARACTERS_MAX} characters",
    )


def check_name(checks: FieldChecks, name: str) -> None:
    """Note what is wrong with a member's name."""
    checks.require(
        bool(name.strip()) and len(name) <= NAME_CHARACTERS_MAX and name == _printable(name),
        "name",
        f"must have 1 to {NAME_CHARACTERS_MAX} characters, no control characters",
    )


def check_role(checks: FieldChecks, role: str) -> None:
    """Note what is wrong with a role."""
    checks.require(role in ROLES, "role", f"must be one of {', '.join(ROLES)}")


def _printable(text: str) -> str:
    return "".join(each for each in text if unicodedata.category(each) != "Cc")
