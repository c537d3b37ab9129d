"""Telling the other processes what changed, so that they don't go on with what they remember."""

from collections.abc import Awaitable
from typing import Protocol

import structlog

from services.kit.database import after_commit

log = structlog.get_logger()


class Changes(Protocol):
    """Tells every process what changed; raises when they can't be told now."""

    async def key_changed(self, key_id: str) -> None:
        """A key was revoked."""

    async def organization_changed(self, organization_id: str) -> None:
        """An organization's settings changed."""

    async def member_changed(self, member_id: str) -> None:
        """A member's role changed, they were removed, or one of their sessions ended."""

    async def portal_link_changed(self, link_id: str) -> None:
        """A link to the customer portal was revoked."""


async def told(telling: Awaitable[None], failure: str, **about: str) -> None:
    """Wait until the others are told. It is done all the same when they can't be: they ask again
    within 30 s.
    """

    async def tell() -> None:
        try:
            await telling
        except Exception as error:
            log.warning(failure, error=type(error).__name__, **about)

    await after_commit(tell)
