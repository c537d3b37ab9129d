"""Passwords: argon2id (RFC 9106) with argon2-cffi's defaults, a few at a time.

One takes some 50 ms and 64 MiB, which is the point of it; so only HASHING_MAX run at once, in
threads, and those who come while WAITING_MAX wait are refused.
"""

import asyncio
import secrets
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from services.kit.errors import FieldChecks, OverloadedError

CHARACTERS_MIN = 12
CHARACTERS_MAX = 1_000
HASHING_MAX = 2
WAITING_MAX = 50
Result = TypeVar("Result")


class Passwords:
    """Hashes and checks."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._free = asyncio.Semaphore(HASHING_MAX)
        self._waiting = 0
        self._nobodys: str | None = None

    async def hash(self, password: str) -> str:
        """What to store of a password that check_password() let through."""
        return await self._run(lambda: self._hasher.hash(password))

    async def matches(self, password_hash: str | None, password: str) -> bool:
        """Whether it is the password. None (there is none) takes as long and is False."""
        if len(password) > CHARACTERS_MAX:
            return False
        known = password_hash or await self._nobodys_hash()

        def check() -> bool:
            try:
                return self._hasher.verify(known, password)
            except (VerificationError, InvalidHashError):
                return False

        return await self._run(check) and password_hash is not None

    async def _nobodys_hash(self) -> str:
        if self._nobodys is None:
            self._nobodys = await self.hash(secrets.token_hex())
        return self._nobodys

    async def _run(self, work: Callable[[], Result]) -> Result:
        if self._waiting >= WAITING_MAX:
            raise OverloadedError("Too many people are signing in", retry_after_s=1.0)
        self._waiting += 1
        try:
            async with self._free:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1


def check_password(checks: FieldChecks, password: str, field: str = "password") -> None:
    """Note what is wrong with a password: its length is all that is asked of it (NIST 800-63B)."""
    checks.require(
        CHARACTERS_MIN <= len(password) <= CHARACTERS_MAX,
        field,
        f"must have {CHARACTERS_MIN} to {CHARACTERS_MAX} characters",
    )
