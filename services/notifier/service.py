"""What notifier does: endpoints and their secrets, events and their deliveries."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit import clock, pages
from services.kit.database import Database, TenantKey
from services.kit.errors import NotFoundError, PreconditionError
from services.kit.ids import is_id, new_id
from services.kit.inbox import take_new
from services.notifier import repository, signing
from services.notifier.domain import (
    ENDPOINTS_MAX,
    SECRET_OVERLAP,
    SECRETS_MAX,
    TEST_EVENT_TYPE,
    Delivery,
    Endpoint,
    WebhookEvent,
    check_endpoint,
    webhook_body,
)
from services.notifier.tables import inbox

log = structlog.get_logger()


class Notifier:
    """The use cases. Each is one transaction, committed before it returns.

    `first_delay_s` is the retry schedule's first place; `due` is called after a commit that made
    deliveries due, so that a worker looks at once.
    """

    def __init__(
        self,
        database: Database,
        *,
        allow_private: bool,
        first_delay_s: float,
        due: Callable[[], None],
    ) -> None:
        self._database = database
        self._allow_private = allow_private
        self._first_delay = timedelta(seconds=first_delay_s)
        self._due = due

    async def create_endpoint(
        self, tenant: TenantKey, url: str, event_types: Sequence[str], description: str
    ) -> tuple[Endpoint, str]:
        """Register an endpoint: it, and its secret, which is shown this once.

        InvalidArgumentError names all wrong fields; PreconditionError: there are too many.
        """
        check_endpoint(url, event_types, description, allow_private=self._allow_private)
        now = clock.now()
        kept_types = tuple(dict.fromkeys(event_types))
        endpoint = Endpoint(new_id("whe"), tenant, url, kept_types, description, True, now)
        key = signing.make_key()
        async with self._database.transaction() as connection:
            await repository.lock_tenant(connection, tenant)
            if await repository.count_endpoints(connection, tenant) >= ENDPOINTS_MAX:
                raise PreconditionError(
                    f"There can be at most {ENDPOINTS_MAX} webhook endpoints",
                    reason="too_many_endpoints",
                )
            await repository.insert_endpoint(connection, endpoint)
            await repository.insert_secret(connection, endpoint.id, key, now)
        log.info("endpoint_created", endpoint_id=endpoint.id)
        return endpoint, signing.format_secret(key)

    async def get_endpoint(self, tenant: TenantKey, endpoint_id: str) -> Endpoint:
        """The endpoint; NotFoundError when there is none or it is deleted."""
        async with self._database.transaction() as connection:
            return await _require_endpoint(connection, tenant, endpoint_id)

    async def list_endpoints(
        self, tenant: TenantKey, page_size: int, page_token: str
    ) -> tuple[list[Endpoint], str]:
        """A page of endpoints, newest first, and the next page's token ("" after the last)."""
        limit, before_id = _page(page_size, page_token, "whe")
        async with self._database.transaction() as connection:
            found = await repository.list_endpoints(
                connection, tenant, before_id=before_id, limit=limit + 1
            )
        if len(found) <= limit:
            return found, ""
        return found[:limit], pages.encode_token(found[limit - 1].id)

    async def delete_endpoint(self, tenant: TenantKey, endpoint_id: str) -> None:
        """End an endpoint; what is pending for it is dropped. NotFoundError: never theirs."""
        known = False
        if is_id(endpoint_id, "whe"):
            async with self._database.transaction() as connection:
                known = await repository.delete_endpoint(
                    connection, tenant, endpoint_id, clock.now()
                )
        if not known:
            raise NotFoundError("No such webhook endpoint")
        log.info("endpoint_deleted", endpoint_id=endpoint_id)

    async def rotate_secret(self, tenant: TenantKey, endpoint_id: str) -> str:
        """A new secret, shown this once; those before still sign for 24 h.

        PreconditionError when too many sign already.
        """
        key, now = signing.make_key(), clock.now()
        async with self._database.transaction() as connection:
            await _require_endpoint(connection, tenant, endpoint_id, lock=True)
            if await repository.count_secrets(connection, endpoint_id, now) >= SECRETS_MAX:
                raise PreconditionError(
                    f"At most {SECRETS_MAX} secrets can sign at a time; each ends 24 h after the"
                    " next was made",
                    reason="too_many_secrets",
                )
            await repository.expire_current_secret(connection, endpoint_id, now + SECRET_OVERLAP)
            await repository.insert_secret(connection, endpoint_id, key, now)
        log.info("endpoint_secret_rotated", endpoint_id=endpoint_id)
        return signing.format_secret(key)

    async def send_test(self, tenant: TenantKey, endpoint_id: str) -> Delivery:
        """Send a "webhook.test" event to one endpoint, whatever it subscribed to."""
        now = clock.now()
        async with self._database.transaction() as connection:
            endpoint = await _require_endpoint(connection, tenant, endpoint_id)
            event = _test_event(endpoint, now)
            await repository.insert_events(connection, [event])
            ids = await repository.insert_deliveries(connection, [(event, endpoint)], now, now)
            delivery = await _require_delivery(connection, tenant, ids[0])
        self._due()
        return delivery

    async def list_deliveries(
        self,
        tenant: TenantKey,
        endpoint_id: str,
        status: str | None,
        page_size: int,
        page_token: str,
    ) -> tuple[list[Delivery], str]:
        """A page of an endpoint's deliveries with their last attempts, and the next token."""
        limit, before_id = _page(page_size, page_token, "whd")
        async with self._database.transaction() as connection:
            await _require_endpoint(connection, tenant, endpoint_id)
            found = await repository.list_deliveries(
                connection,
                tenant,
                endpoint_id,
                status=status,
                before_id=before_id,
                limit=limit + 1,
            )
        if len(found) <= limit:
            return found, ""
        return found[:limit], pages.encode_token(found[limit - 1].id)

    async def replay_delivery(self, tenant: TenantKey, delivery_id: str) -> Delivery:
        """Send a delivery again, at once, with the same webhook-id.

        A second click changes nothing. NotFoundError also when its endpoint was deleted.
        """
        async with self._database.transaction() as connection:
            if not is_id(delivery_id, "whd") or not await repository.replay_delivery(
                connection, tenant, delivery_id, clock.now()
            ):
                raise NotFoundError("No such delivery")
            delivery = await _require_delivery(connection, tenant, delivery_id)
        self._due()
        return delivery

    async def take_events(self, events: Sequence[WebhookEvent]) -> int:
        """Store events not seen before and a delivery for each endpoint that takes them.

        What is subscribed now is decided now: later endpoints get none of it. Returns how many
        deliveries came of it.
        """
        now = clock.now()
        by_id = {event.id: event for event in events}
        async with self._database.transaction() as connection:
            new_ids = await take_new(connection, inbox, list(by_id))
            fresh = [event for event in by_id.values() if event.id in new_ids]
            tenants = list({event.tenant for event in fresh})
            subscribed = await repository.endpoints_of(connection, tenants)
            pairs = [
                (event, endpoint)
                for event in fresh
                for endpoint in subscribed[event.tenant]
                if endpoint.takes(event.type)
            ]
            await repository.insert_events(connection, fresh)
            await repository.insert_deliveries(connection, pairs, now, now + self._first_delay)
        if pairs:
            self._due()
        return len(pairs)


def _page(page_size: int, page_token: str, prefix: str) -> tuple[int, str | None]:
    limit = pages.page_limit(page_size)
    before_id = pages.decode_token(page_token, 1)[0] if page_token else None
    if before_id is not None and not is_id(before_id, prefix):
        raise pages.invalid_token()
    return limit, before_id


def _test_event(endpoint: Endpoint, now: datetime) -> WebhookEvent:
    data_json = f'{{"endpointId":"{endpoint.id}"}}'
    body = webhook_body(TEST_EVENT_TYPE, now, data_json)
    return WebhookEvent(new_id("whevt"), endpoint.tenant, TEST_EVENT_TYPE, now, body)


async def _require_endpoint(
    connection: AsyncConnection, tenant: TenantKey, endpoint_id: str, *, lock: bool = False
) -> Endpoint:
    endpoint = None
    if is_id(endpoint_id, "whe"):
        endpoint = await repository.get_endpoint(connection, tenant, endpoint_id, lock=lock)
    if endpoint is None:
        raise NotFoundError("No such webhook endpoint")
    return endpoint


async def _require_delivery(
    connection: AsyncConnection, tenant: TenantKey, delivery_id: str
) -> Delivery:
    delivery = await repository.get_delivery(connection, tenant, delivery_id)
    if delivery is None:
        raise NotFoundError("No such delivery")
    return delivery
