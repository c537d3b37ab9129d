"""Signing in by password is slowed down, by the member's address and by where attempts come from.

An attempt is counted before the password is looked at, so that many at once are slowed down like
many in a row, and forgiven when it was the right one. What is counted is in the database: it is the
same for every replica and survives restarts. It is bounded: an hour after the last attempt a row is
forgotten.
"""

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Delete, case, delete, select
from sqlalchemy.dialects.postgresql import Insert, insert

from services.accounts.tables import sign_in_failures
from services.kit import clock
from services.kit.database import Database
from services.kit.errors import OverloadedError

FORGOTTEN_AFTER = timedelta(hours=1)
FORGOTTEN_AT_ONCE_MAX = 1_000
# One network has as many IPv6 addresses as it likes.
IPV6_PREFIX = 64
_table = sign_in_failures


@dataclass(frozen=True, slots=True)
class Limit:
    """So many attempts are free; each further one waits twice as long as the one before it."""

    free: int
    wait_s_max: int

    def wait(self, failures: int) -> timedelta:
        """How long to wait after so many failures."""
        beyond = failures - self.free
        if beyond < 0:
            return timedelta(0)
        # 2 ** 20 s are more than any wait_s_max.
        return timedelta(seconds=min(2 ** min(beyond, 20), self.wait_s_max))


# Whoever fails on purpose must not keep the member out for long: a minute.
BY_EMAIL = Limit(free=5, wait_s_max=60)
BY_ADDRESS = Limit(free=20, wait_s_max=900)


class Attempts:
    """Counts them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, email: str, address: str) -> None:
        """Count an attempt. OverloadedError says how long to wait; then nothing is counted."""
        now = clock.now()
        limits = _limits(email, address)
        subjects = sorted(limits)
        async with self._database.transaction() as connection:
            query = select(_table).where(_table.c.subject.in_(subjects))
            rows = await connection.execute(query.order_by(_table.c.subject).with_for_update())
            wait = timedelta(0)
            for row in rows:
                if row.last_time + FORGOTTEN_AFTER > now:
                    until = row.last_time + limits[row.subject].wait(row.failures)
                    wait = max(wait, until - now)
            if wait > timedelta(0):
                raise OverloadedError(
                    "Too many attempts to sign in failed: wait, or use a sign-in link",
                    reason="too_many_attempts",
                    retry_after_s=wait.total_seconds(),
                )
            for subject in subjects:
                await connection.execute(_count(subject, now))
            await connection.execute(_forget(now))

    async def forgive(self, email: str, address: str) -> None:
        """It was the right password: forget what was counted for the member, and this attempt for
        where it came from.
        """
        by_email, *others = _limits(email, address)
        async with self._database.transaction() as connection:
            await connection.execute(delete(_table).where(_table.c.subject == by_email))
            for subject in others:
                await connection.execute(
                    delete(_table).where(_table.c.subject == subject, _table.c.failures == 1)
                )
                await connection.execute(
                    _table.update()
                    .where(_table.c.subject == subject, _table.c.failures > 1)
                    .values(failures=_table.c.failures - 1)
                )


def _limits(email: str, address: str) -> dict[str, Limit]:
    """The subjects that an attempt counts for; the member's address first."""
    digest = hashlib.sha256(email.encode()).hexdigest()
    limits = {f"email:{digest}": BY_EMAIL}
    if network := _network(address):
        limits[f"from:{network}"] = BY_ADDRESS
    return limits


def _network(address: str) -> str:
    """What is taken for one place; "" when nobody knows."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))
    return str(parsed)


def _count(subject: str, now: datetime) -> Insert:
    statement = insert(_table).values(subject=subject, failures=1, last_time=now)
    forgotten = _table.c.last_time <= now - FORGOTTEN_AFTER
    return statement.on_conflict_do_update(
        index_elements=[_table.c.subject],
        set_={
            "failures": case((forgotten, 1), else_=_table.c.failures + 1),
            "last_time": now,
        },
    )


def _forget(now: datetime) -> Delete:
    """Old rows, but none that another is counting with."""
    old = select(_table.c.subject).where(_table.c.last_time <= now - FORGOTTEN_AFTER)
    old = old.limit(FORGOTTEN_AT_ONCE_MAX).with_for_update(skip_locked=True)
    return delete(_table).where(_table.c.subject.in_(old.scalar_subquery()))
