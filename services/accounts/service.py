"""What accounts does: organizations, API keys, and who a key stands for."""

from dataclasses import replace
from datetime import timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.accounts import audit_repository, clocks_repository, repository
from services.accounts.changes import Changes, told
from services.accounts.domain import (
    KEY_USE_WRITTEN,
    OVERLAP_DEFAULT,
    OVERLAP_MAX,
    ApiKey,
    ClockTime,
    KeyChange,
    NewKey,
    Organization,
    OrganizationChange,
    ResolvedKey,
    check_new_key,
    check_organization,
    hash_key,
    ordered_scopes,
)
from services.kit import clock, pages
from services.kit.audit import audit_event, changes
from services.kit.auth import invalid_key
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldChecks, NotFoundError, PreconditionError
from services.kit.etag import Expectation
from services.kit.ids import is_id, new_id
from services.kit.keys import PREFIX_CHARACTERS, looks_like_key, make_key

log = structlog.get_logger()

ORGANIZATIONS_PER_PAGE = 100
ORGANIZATIONS_PER_PAGE_MAX = 1_000


class Accounts:
    """The use cases. Each is one transaction, committed before it returns."""

    def __init__(self, database: Database, pepper: bytes, changes: Changes) -> None:
        self._database = database
        self._pepper = pepper
        self._changes = changes

    async def create_organization(self, name: str) -> Organization:
        """Make an organization. InvalidArgumentError unless the name has 1-200 characters."""
        organization = Organization(new_id("org"), name, clock.now())
        check_organization(organization)
        async with self._database.transaction() as connection:
            await repository.insert_organization(connection, organization)
        log.info("organization_created", organization_id=organization.id)
        return organization

    async def get_organization(self, organization_id: str) -> Organization:
        """The organization; NotFoundError when there is none."""
        async with self._database.transaction() as connection:
            return await _require_organization(connection, organization_id)

    async def update_organization(
        self,
        organization_id: str,
        change: OrganizationChange,
        *,
        by_key: str = "",
        expect: Expectation[Organization] | None = None,
    ) -> Organization:
        """Change what is given and keep the rest; the organization as it is now.

        InvalidArgumentError names all wrong fields; NotFoundError; StaleError when it is not as
        `expect` has it. Every process is told after the commit; whoever can't be told asks again
        within 30 s.
        """
        async with self._database.transaction() as connection:
            before = await _require_organization(connection, organization_id, for_update=True)
            if expect is not None:
                expect(before)
            organization = change.of(before)
            await repository.update_organization(connection, organization)
            await _note_change(connection, before, organization, by_key)
        log.info("organization_updated", organization_id=organization.id)
        await told(
            self._changes.organization_changed(organization.id),
            "organization_change_not_told",
            organization_id=organization.id,
        )
        return organization

    async def list_organizations(
        self, page_size: int, page_token: str
    ) -> tuple[list[Organization], str]:
        """A page of all organizations, oldest first, and the next page's token."""
        limit = pages.page_limit(
            page_size, default=ORGANIZATIONS_PER_PAGE, size_max=ORGANIZATIONS_PER_PAGE_MAX
        )
        after_id = pages.id_position(page_token, "org")
        async with self._database.transaction() as connection:
            organizations = await repository.list_organizations(
                connection, after_id=after_id, limit=limit + 1
            )
        return pages.page_of_ids(organizations, limit)

    async def create_api_key(
        self, tenant: TenantKey, new: NewKey, *, by_key: str = ""
    ) -> tuple[ApiKey, str]:
        """Make a key: its description and the key itself, which is not kept.

        InvalidArgumentError names all wrong fields; NotFoundError: no such organization.
        """
        now = clock.now()
        limits = check_new_key(new, tenant.mode, now)
        secret = make_key(tenant.mode)
        key = ApiKey(
            id=new_id("key"),
            organization_id=tenant.organization_id,
            mode=tenant.mode,
            name=new.name,
            prefix=secret[:PREFIX_CHARACTERS],
            scopes=ordered_scopes(new.scopes),
            create_time=now,
            expire_time=new.expire_time,
            revoke_time=None,
            limits=limits,
        )
        async with self._database.transaction() as connection:
            await _require_organization(connection, tenant.organization_id)
            await repository.insert_api_key(connection, key, hash_key(self._pepper, secret))
            made = audit_event(
                tenant,
                "api_key.created",
                target_id=key.id,
                key_id=by_key,
                details={
                    **_shown_key(key),
                    "prefix": key.prefix,
                    "scopes": key.scopes,
                    "expiresAt": key.expire_time,
                },
            )
            await audit_repository.insert_events(connection, [made])
        log.info("api_key_created", key_id=key.id, organization_id=key.organization_id)
        return key, secret

    async def get_api_key(self, tenant: TenantKey, key_id: str) -> ApiKey:
        """The key; NotFoundError: not one of theirs."""
        async with self._database.transaction() as connection:
            return await _require_key(connection, tenant, key_id)

    async def update_api_key(
        self,
        tenant: TenantKey,
        key_id: str,
        change: KeyChange,
        *,
        by_key: str = "",
        expect: Expectation[ApiKey] | None = None,
    ) -> ApiKey:
        """Change what is given and keep the rest; the key as it is now.

        InvalidArgumentError names all wrong fields; NotFoundError: not one of theirs; StaleError
        when it is not as `expect` has it. Every process is told after the commit; whoever can't be
        told asks again within 30 s.
        """
        async with self._database.transaction() as connection:
            before = await _require_key(connection, tenant, key_id, for_update=True)
            if expect is not None:
                expect(before)
            key = change.of(before)
            await repository.update_api_key(connection, key)
            if details := changes(_shown_key(before), _shown_key(key)):
                changed = audit_event(
                    tenant, "api_key.updated", target_id=key_id, key_id=by_key, details=details
                )
                await audit_repository.insert_events(connection, [changed])
        log.info("api_key_updated", key_id=key.id, organization_id=key.organization_id)
        await told(self._changes.key_changed(key.id), "api_key_change_not_told", key_id=key.id)
        return key

    async def list_api_keys(
        self, tenant: TenantKey, page_size: int, page_token: str
    ) -> tuple[list[ApiKey], str]:
        """A page of keys, newest first, and the next page's token ("" after the last)."""
        limit = pages.page_limit(page_size)
        before_id = pages.id_position(page_token, "key")
        async with self._database.transaction() as connection:
            keys = await repository.list_api_keys(
                connection, tenant, before_id=before_id, limit=limit + 1
            )
        return pages.page_of_ids(keys, limit)

    async def revoke_api_key(
        self,
        tenant: TenantKey,
        key_id: str,
        *,
        by_key: str = "",
        expect: Expectation[ApiKey] | None = None,
    ) -> ApiKey:
        """End a key for good; repeating it changes nothing. NotFoundError: not one of theirs;
        StaleError when it is not as `expect` has it.

        Every process is told after the commit. When that fails the key is revoked all the same:
        those who were not told look it up again within 30 s.
        """
        async with self._database.transaction() as connection:
            key = await _require_key(connection, tenant, key_id, for_update=True)
            if expect is not None:
                expect(key)
            if key.revoke_time is None:
                key = replace(key, revoke_time=(now := clock.now()))
                await repository.revoke_api_key(connection, key_id, now)
                ended = audit_event(
                    tenant,
                    "api_key.revoked",
                    target_id=key_id,
                    key_id=by_key,
                    details={"name": key.name, "prefix": key.prefix},
                )
                await audit_repository.insert_events(connection, [ended])
        log.info("api_key_revoked", key_id=key.id, organization_id=key.organization_id)
        await told(self._changes.key_changed(key.id), "api_key_change_not_told", key_id=key.id)
        return key

    async def resolve_api_key(self, secret: str) -> ResolvedKey:
        """The key that `secret` is; UnauthenticatedError alike for wrong, revoked and expired."""
        if not looks_like_key(secret):
            raise invalid_key()
        now = clock.now()
        async with self._database.transaction() as connection:
            resolved = await repository.find_api_key(connection, hash_key(self._pepper, secret))
            if resolved is None or not resolved.key.works_at(now):
                raise invalid_key()
            used = resolved.key.use_time
            if used is None or now - used > KEY_USE_WRITTEN:
                await repository.note_use(connection, resolved.key.id, now)
            if resolved.key.mode == "test":
                running = clocks_repository.running_clocks
                clocks = await running(connection, resolved.key.organization_id)
                resolved = replace(resolved, clocks=clocks)
        return resolved

    async def set_clock(self, organization_id: str, clock_id: str, clock: ClockTime) -> None:
        """Note what a test clock shows, unless something newer is known; NotFoundError.

        Every process is told after the commit, as of a changed setting.
        """
        async with self._database.transaction() as connection:
            await _require_organization(connection, organization_id)
            if not await clocks_repository.put_clock(connection, organization_id, clock_id, clock):
                return
        await told(
            self._changes.organization_changed(organization_id),
            "organization_change_not_told",
            organization_id=organization_id,
        )

    async def rotate_api_key(
        self, tenant: TenantKey, key_id: str, overlap: timedelta | None, *, by_key: str = ""
    ) -> tuple[ApiKey, str, ApiKey]:
        """Make a key that takes the place of another: its description, the key itself, which is not
        kept, and the old one, which goes on working for `overlap` (None: a day).

        InvalidArgumentError; NotFoundError: not one of theirs; PreconditionError: it works no more,
        or was rotated before.
        """
        overlap = OVERLAP_DEFAULT if overlap is None else overlap
        checks = FieldChecks()
        within = timedelta(0) <= overlap <= OVERLAP_MAX
        checks.require(within, "overlapSeconds", f"must be at most {OVERLAP_MAX.days} days")
        checks.done()
        now = clock.now()
        async with self._database.transaction() as connection:
            old = await _require_key(connection, tenant, key_id, for_update=True)
            if not old.works_at(now) or old.successor_id is not None:
                raise PreconditionError(
                    "Only a key that works and was not rotated can be", reason="key_not_in_use"
                )
            ends = now + overlap
            ends = ends if old.expire_time is None else min(ends, old.expire_time)
            secret = make_key(tenant.mode)
            key = replace(
                old,
                id=new_id("key"),
                prefix=secret[:PREFIX_CHARACTERS],
                create_time=now,
                use_time=None,
            )
            await repository.insert_api_key(connection, key, hash_key(self._pepper, secret))
            await repository.succeed(connection, old.id, key.id, ends)
            rotated = audit_event(
                tenant,
                "api_key.rotated",
                target_id=old.id,
                key_id=by_key,
                details={"name": old.name, "newKeyId": key.id, "expiresAt": ends},
            )
            await audit_repository.insert_events(connection, [rotated])
        log.info("api_key_rotated", key_id=old.id, new_key_id=key.id)
        await told(self._changes.key_changed(old.id), "api_key_change_not_told", key_id=old.id)
        return key, secret, replace(old, successor_id=key.id, expire_time=ends)


async def _require_organization(
    connection: AsyncConnection, organization_id: str, *, for_update: bool = False
) -> Organization:
    organization = None
    if is_id(organization_id, "org"):
        organization = await repository.get_organization(
            connection, organization_id, for_update=for_update
        )
    if organization is None:
        raise NotFoundError("No such organization")
    return organization


async def _require_key(
    connection: AsyncConnection, tenant: TenantKey, key_id: str, *, for_update: bool = False
) -> ApiKey:
    key = None
    if is_id(key_id, "key"):
        key = await repository.get_api_key(connection, tenant, key_id, for_update=for_update)
    if key is None:
        raise NotFoundError("No such API key")
    return key


async def _note_change(
    connection: AsyncConnection, before: Organization, after: Organization, by_key: str
) -> None:
    """Both modes have the organization, so the audit logs of both tell of it."""
    details = changes(_shown(before), _shown(after))
    if not details:
        return
    await audit_repository.note_in_both_modes(
        connection,
        after.id,
        "organization.updated",
        target_id=after.id,
        by=by_key,
        details=details,
    )


def _shown(organization: Organization) -> dict[str, object]:
    settings = organization.settings
    return {
        "name": organization.name,
        "eventPastDays": settings.event_past_days,
        "eventRetentionDays": settings.event_retention_days,
        "strictMetrics": settings.strict_metrics,
        "requestsPerSecond": settings.requests_per_second,
        "eventsPerSecond": settings.events_per_second,
    }


def _shown_key(key: ApiKey) -> dict[str, object]:
    return {
        "name": key.name,
        "allowedNetworks": list(key.limits.networks),
        "requestsPerSecond": key.limits.requests_per_second or None,
        "eventsPerSecond": key.limits.events_per_second or None,
    }
