"""What accounts does: organizations, API keys, and who a key stands for."""

from typing import Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.accounts import repository
from services.accounts.domain import (
    ApiKey,
    NewKey,
    Organization,
    check_new_key,
    check_organization_name,
    hash_key,
    ordered_scopes,
)
from services.kit import clock, pages
from services.kit.auth import invalid_key
from services.kit.database import Database, TenantKey
from services.kit.errors import NotFoundError
from services.kit.ids import is_id, new_id
from services.kit.keys import PREFIX_CHARACTERS, looks_like_key, make_key

log = structlog.get_logger()


class KeyChanges(Protocol):
    """Tells every process that a key changed."""

    async def key_changed(self, key_id: str) -> None:
        """Tell them; raises when they can't be told now."""


class Accounts:
    """The use cases. Each is one transaction, committed before it returns."""

    def __init__(self, database: Database, pepper: bytes, changes: KeyChanges) -> None:
        self._database = database
        self._pepper = pepper
        self._changes = changes

    async def create_organization(self, name: str) -> Organization:
        """Make an organization. InvalidArgumentError unless the name has 1-200 characters."""
        check_organization_name(name)
        organization = Organization(new_id("org"), name, clock.now())
        async with self._database.transaction() as connection:
            await repository.insert_organization(connection, organization)
        log.info("organization_created", organization_id=organization.id)
        return organization

    async def get_organization(self, organization_id: str) -> Organization:
        """The organization; NotFoundError when there is none."""
        async with self._database.transaction() as connection:
            return await _require_organization(connection, organization_id)

    async def create_api_key(self, tenant: TenantKey, new: NewKey) -> tuple[ApiKey, str]:
        """Make a key: its description and the key itself, which is not kept.

        InvalidArgumentError names all wrong fields; NotFoundError: no such organization.
        """
        now = clock.now()
        check_new_key(new, tenant.mode, now)
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
        )
        async with self._database.transaction() as connection:
            await _require_organization(connection, tenant.organization_id)
            await repository.insert_api_key(connection, key, hash_key(self._pepper, secret))
        log.info("api_key_created", key_id=key.id, organization_id=key.organization_id)
        return key, secret

    async def list_api_keys(
        self, tenant: TenantKey, page_size: int, page_token: str
    ) -> tuple[list[ApiKey], str]:
        """A page of keys, newest first, and the next page's token ("" after the last)."""
        limit = pages.page_limit(page_size)
        before_id = pages.decode_token(page_token, 1)[0] if page_token else None
        if before_id is not None and not is_id(before_id, "key"):
            raise pages.invalid_token()
        async with self._database.transaction() as connection:
            keys = await repository.list_api_keys(
                connection, tenant, before_id=before_id, limit=limit + 1
            )
        if len(keys) <= limit:
            return keys, ""
        return keys[:limit], pages.encode_token(keys[limit - 1].id)

    async def revoke_api_key(self, tenant: TenantKey, key_id: str) -> ApiKey:
        """End a key for good; repeating it changes nothing. NotFoundError: not one of theirs.

        Every process is told after the commit. When that fails the key is revoked all the same:
        those who were not told look it up again within 30 s.
        """
        if not is_id(key_id, "key"):
            raise NotFoundError("No such API key")
        async with self._database.transaction() as connection:
            key = await repository.revoke_api_key(connection, tenant, key_id, clock.now())
        if key is None:
            raise NotFoundError("No such API key")
        log.info("api_key_revoked", key_id=key.id, organization_id=key.organization_id)
        try:
            await self._changes.key_changed(key.id)
        except Exception as error:
            log.warning("api_key_change_not_told", key_id=key.id, error=type(error).__name__)
        return key

    async def resolve_api_key(self, secret: str) -> ApiKey:
        """The key that `secret` is; UnauthenticatedError alike for wrong, revoked and expired."""
        if not looks_like_key(secret):
            raise invalid_key()
        async with self._database.transaction() as connection:
            key = await repository.find_api_key(connection, hash_key(self._pepper, secret))
        if key is None or not key.works_at(clock.now()):
            raise invalid_key()
        return key


async def _require_organization(connection: AsyncConnection, organization_id: str) -> Organization:
    organization = None
    if is_id(organization_id, "org"):
        organization = await repository.get_organization(connection, organization_id)
    if organization is None:
        raise NotFoundError("No such organization")
    return organization
