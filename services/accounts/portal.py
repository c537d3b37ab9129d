"""Links to the customer portal: who has one sees what is one customer's, for a while."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.accounts import (
    audit_repository,
    clocks_repository,
    people_repository,
    portal_repository,
)
from services.accounts.changes import Changes, told
from services.accounts.domain import has_control, hash_key
from services.accounts.portal_repository import PortalLink, ResolvedLink
from services.kit import clock, pages
from services.kit.audit import audit_event
from services.kit.auth import Principal, invalid_portal_link
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldChecks, NotFoundError, OverloadedError
from services.kit.events import CUSTOMER_ID_CHARS_MAX
from services.kit.ids import is_id, new_id
from services.kit.keys import PORTAL_START, is_token, make_token

log = structlog.get_logger()

LIFE_DEFAULT = timedelta(days=1)
LIFE_MIN = timedelta(minutes=1)
LIFE_MAX = timedelta(days=30)
# Of one customer, that work. An application may make one whenever its user asks for it.
WORKING_MAX = 1_000
# Links are listed for so long after they stopped working; each new one takes up to so many older
# ones with it, so that the table needs no loop of its own.
KEPT = timedelta(days=90)
DROPPED_AT_ONCE_MAX = 20


@dataclass(frozen=True, slots=True)
class Portal:
    """Whom a link is for, as its holder is told."""

    organization_name: str
    customer_id: str
    expire_time: datetime | None


class Portals:
    """The use cases. Each is one transaction, committed before it returns."""

    def __init__(self, database: Database, pepper: bytes, changes: Changes) -> None:
        self._database = database
        self._pepper = pepper
        self._changes = changes

    async def create(
        self, tenant: TenantKey, customer_id: str, life: timedelta | None, *, by: str
    ) -> tuple[PortalLink, str]:
        """Make a link, which works for `life` (None: a day): the link and its token, which is not
        kept.

        InvalidArgumentError names all wrong fields; OverloadedError: too many links of the
        customer work.
        """
        life = LIFE_DEFAULT if life is None else life
        _check(customer_id, life)
        now = clock.now()
        token = make_token(PORTAL_START)
        link = PortalLink(
            id=new_id("ptl"),
            organization_id=tenant.organization_id,
            mode=tenant.mode,
            customer_id=customer_id,
            created_by=by,
            create_time=now,
            expire_time=now + life,
            revoke_time=None,
        )
        async with self._database.transaction() as connection:
            await self._make_room(connection, tenant, customer_id, now)
            await portal_repository.insert_link(connection, link, hash_key(self._pepper, token))
            await _note(
                connection,
                tenant,
                "portal_link.created",
                link,
                by,
                {"customerId": customer_id, "expiresAt": link.expire_time},
            )
        log.info("portal_link_created", portal_link_id=link.id)
        return link, token

    async def _make_room(
        self, connection: AsyncConnection, tenant: TenantKey, customer_id: str, now: datetime
    ) -> None:
        # One after the other: many at once must not exceed the number together.
        await people_repository.lock_organization(connection, tenant.organization_id)
        await portal_repository.drop_old(connection, tenant, now - KEPT, DROPPED_AT_ONCE_MAX)
        working = await portal_repository.count_working(connection, tenant, customer_id, now)
        if working >= WORKING_MAX:
            raise OverloadedError(
                f"At most {WORKING_MAX} links of a customer may work at a time: revoke some",
                reason="too_many_portal_links",
            )

    async def list(
        self, tenant: TenantKey, customer_id: str, page_size: int, page_token: str
    ) -> tuple[list[PortalLink], str]:
        """A page of links, newest first, and the next page's token; `customer_id` "": of all."""
        limit = pages.page_limit(page_size)
        async with self._database.transaction() as connection:
            found = await portal_repository.list_links(
                connection,
                tenant,
                customer_id,
                before_id=pages.id_position(page_token, "ptl"),
                limit=limit + 1,
            )
        return pages.page_of_ids(found, limit)

    async def revoke(self, tenant: TenantKey, link_id: str, *, by: str) -> PortalLink:
        """End a link at once; repeating it changes nothing. NotFoundError."""
        link = None
        if is_id(link_id, "ptl"):
            async with self._database.transaction() as connection:
                link = await portal_repository.lock_link(connection, tenant, link_id)
                if link is not None and link.revoke_time is None:
                    link = await portal_repository.revoke_link(connection, link, clock.now())
                    about = {"customerId": link.customer_id}
                    await _note(connection, tenant, "portal_link.revoked", link, by, about)
        if link is None:
            raise NotFoundError("No such portal link")
        log.info("portal_link_revoked", portal_link_id=link.id)
        await told(
            self._changes.portal_link_changed(link.id),
            "portal_link_change_not_told",
            portal_link_id=link.id,
        )
        return link

    async def resolve(self, token: str) -> ResolvedLink:
        """The link that this is the token of. UnauthenticatedError alike for a wrong, revoked and
        expired one.
        """
        if not is_token(token, PORTAL_START):
            raise invalid_portal_link()
        async with self._database.transaction() as connection:
            found = await portal_repository.find_link(connection, hash_key(self._pepper, token))
            if found is not None and found.link.mode == "test":
                running = clocks_repository.running_clocks
                clocks = await running(connection, found.link.organization_id)
                found = replace(found, clocks=clocks)
        if found is None or not found.link.works_at(clock.now()):
            raise invalid_portal_link()
        return found

    async def current(self, principal: Principal) -> Portal:
        """Whom the calling link is for."""
        async with self._database.transaction() as connection:
            name = await portal_repository.organization_name(connection, principal.organization_id)
        return Portal(name, principal.customer_id, principal.expire_time)


def _check(customer_id: str, life: timedelta) -> None:
    checks = FieldChecks()
    checks.require(
        1 <= len(customer_id) <= CUSTOMER_ID_CHARS_MAX and not has_control(customer_id),
        "customerId",
        f"must be 1-{CUSTOMER_ID_CHARS_MAX} characters without control characters",
    )
    checks.require(
        LIFE_MIN <= life <= LIFE_MAX,
        "expiresInSeconds",
        f"must be {LIFE_MIN.total_seconds():.0f} to {LIFE_MAX.total_seconds():.0f}",
    )
    checks.done()


async def _note(
    connection: AsyncConnection,
    tenant: TenantKey,
    action: str,
    link: PortalLink,
    by: str,
    details: Mapping[str, object],
) -> None:
    event = audit_event(tenant, action, target_id=link.id, key_id=by, details=details)
    await audit_repository.insert_events(connection, [event])
