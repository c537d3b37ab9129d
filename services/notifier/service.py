"""What notifier does: endpoints and their secrets, events and their fan-out."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog

from services.kit import clock, pages
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldChecks, NotFoundError, PreconditionError
from services.kit.etag import Expectation
from services.kit.ids import is_id, new_id
from services.kit.inbox import take_new
from services.notifier import audited, repository
from services.notifier import endpoint_checks as check
from services.notifier.domain import (
    ENDPOINTS_MAX,
    SECRET_OVERLAP,
    SECRETS_MAX,
    Delivery,
    Endpoint,
    EndpointChange,
    NewEndpoint,
    WebhookEvent,
    webhook_body,
)
from services.notifier.filters import TEST_EVENT_TYPE
from services.notifier.lookup import page, require_delivery, require_enabled, require_endpoint
from services.notifier.sealing import Sealer
from services.notifier.secret_store import choose_key, seal_headers, seal_secret
from services.notifier.signing import SigningKey
from services.notifier.tables import inbox

log = structlog.get_logger()

# Columns of an endpoint that has just been enabled.
ENABLED = {
    "enabled": True,
    "disabled_reason": "",
    "disable_time": None,
    "failing_since": None,
    "last_failure_time": None,
    "throttle_step": 0,
    "throttle_until": None,
}


def disabled(reason: str, now: datetime) -> dict[str, object]:
    """Columns of an endpoint that has just been disabled."""
    return {"enabled": False, "disabled_reason": reason, "disable_time": now}


class Notifier:
    """The use cases. Each is one transaction, committed before it returns.

    `first_delay_s` is the retry schedule's first place; `due` is called after a commit that made
    deliveries due, so that a worker looks at once.
    """

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        *,
        allow_private: bool,
        first_delay_s: float,
        due: Callable[[], None],
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._allow_private = allow_private
        self._first_delay = timedelta(seconds=first_delay_s)
        self._due = due

    async def create_endpoint(
        self, tenant: TenantKey, new: NewEndpoint, *, by_key: str = ""
    ) -> tuple[Endpoint, str]:
        """Register an endpoint: it, and its secret, which is shown this once ("" for ed25519).

        InvalidArgumentError names all wrong fields; PreconditionError: there are too many.
        """
        key, now = self._check_new(new), clock.now()
        endpoint = Endpoint(
            id=new_id("whe"),
            tenant=tenant,
            url=new.url,
            event_types=tuple(dict.fromkeys(new.event_types)),
            description=new.description,
            create_time=now,
            rate_limit=new.rate_limit,
            header_names=tuple(sorted(new.headers)),
            signature_kind=key.kind,
            public_key=key.public_key,
        )
        sealed_headers = seal_headers(self._sealer, endpoint.id, new.headers)
        async with self._database.transaction() as connection:
            await repository.lock_tenant(connection, tenant)
            if await repository.count_endpoints(connection, tenant) >= ENDPOINTS_MAX:
                raise PreconditionError(
                    f"There can be at most {ENDPOINTS_MAX} webhook endpoints",
                    reason="too_many_endpoints",
                )
            await repository.insert_endpoint(connection, endpoint, sealed_headers)
            sealed = seal_secret(self._sealer, endpoint.id, key)
            await repository.insert_secret(connection, endpoint.id, key, sealed, now)
            await audited.note(
                connection, tenant, "created", endpoint.id, by_key, audited.shown(endpoint)
            )
        log.info("endpoint_created", endpoint_id=endpoint.id)
        return endpoint, key.secret

    def _check_new(self, new: NewEndpoint) -> SigningKey:
        checks = FieldChecks()
        check.check_url(checks, new.url, allow_private=self._allow_private)
        check.check_event_types(checks, new.event_types)
        check.check_description(checks, new.description)
        check.check_rate_limit(checks, new.rate_limit)
        check.check_headers(checks, new.headers)
        key = choose_key(checks, new.signature_kind, new.secret)
        checks.done()
        assert key is not None
        return key

    async def update_endpoint(
        self,
        tenant: TenantKey,
        endpoint_id: str,
        change: EndpointChange,
        *,
        by_key: str = "",
        expect: Expectation[Endpoint] | None = None,
    ) -> Endpoint:
        """Change what is not None. InvalidArgumentError names all wrong fields; StaleError when it
        is not as `expect` has it.

        Disabling ends what is pending as failed; enabling gives the endpoint a new start.
        """
        self._check_change(change)
        now = clock.now()
        async with self._database.transaction() as connection:
            before = await require_endpoint(connection, tenant, endpoint_id, lock=True)
            if expect is not None:
                expect(before)
            values = self._changed_columns(endpoint_id, change)
            if change.enabled is not None and change.enabled != before.enabled:
                values |= ENABLED if change.enabled else disabled("requested", now)
            await repository.update_endpoint(connection, endpoint_id, values)
            if change.enabled is False:
                await repository.end_pending(connection, endpoint_id, "failed")
            after = await require_endpoint(connection, tenant, endpoint_id)
            if changed := audited.changed(before, after, headers_sent=change.headers is not None):
                await audited.note(connection, tenant, "updated", endpoint_id, by_key, changed)
        log.info("endpoint_updated", endpoint_id=endpoint_id, columns=sorted(values))
        return after

    def _check_change(self, change: EndpointChange) -> None:
        checks = FieldChecks()
        if change.url is not None:
            check.check_url(checks, change.url, allow_private=self._allow_private)
        check.check_event_types(checks, change.event_types or ())
        check.check_description(checks, change.description or "")
        check.check_rate_limit(checks, change.rate_limit or 0)
        check.check_headers(checks, change.headers or {})
        checks.done()

    def _changed_columns(self, endpoint_id: str, change: EndpointChange) -> dict[str, object]:
        values: dict[str, object] = {
            name: value
            for name in ("url", "description", "rate_limit")
            if (value := getattr(change, name)) is not None
        }
        if change.event_types is not None:
            values["event_types"] = list(dict.fromkeys(change.event_types))
        if change.headers is not None:
            values["header_names"] = sorted(change.headers)
            values["sealed_headers"] = seal_headers(self._sealer, endpoint_id, change.headers)
        return values

    async def get_endpoint(self, tenant: TenantKey, endpoint_id: str) -> Endpoint:
        """The endpoint; NotFoundError when there is none or it is deleted."""
        async with self._database.transaction() as connection:
            return await require_endpoint(connection, tenant, endpoint_id)

    async def list_endpoints(
        self, tenant: TenantKey, page_size: int, page_token: str
    ) -> tuple[list[Endpoint], str]:
        """A page of endpoints, newest first, and the next page's token ("" after the last)."""
        limit, before_id = page(page_size, page_token, "whe")
        async with self._database.transaction() as connection:
            found = await repository.list_endpoints(
                connection, tenant, before_id=before_id, limit=limit + 1
            )
        if len(found) <= limit:
            return found, ""
        return found[:limit], pages.encode_token(found[limit - 1].id)

    async def delete_endpoint(
        self,
        tenant: TenantKey,
        endpoint_id: str,
        *,
        by_key: str = "",
        expect: Expectation[Endpoint] | None = None,
    ) -> None:
        """End an endpoint; what is pending for it is dropped. NotFoundError: never theirs;
        StaleError when it is not as `expect` has it.
        """
        known = False
        if is_id(endpoint_id, "whe"):
            async with self._database.transaction() as connection:
                before = await repository.get_endpoint(connection, tenant, endpoint_id, lock=True)
                if before is not None:
                    if expect is not None:
                        expect(before)
                    details = audited.shown(before)
                    await audited.note(connection, tenant, "deleted", endpoint_id, by_key, details)
                known = await repository.delete_endpoint(
                    connection, tenant, endpoint_id, clock.now()
                )
        if not known:
            raise NotFoundError("No such webhook endpoint")
        log.info("endpoint_deleted", endpoint_id=endpoint_id)

    async def rotate_secret(
        self,
        tenant: TenantKey,
        endpoint_id: str,
        kind: str = "",
        secret: str = "",
        *,
        by_key: str = "",
    ) -> SigningKey:
        """A new key, of the same kind unless told; those before still sign for 24 h.

        PreconditionError when too many sign already.
        """
        now = clock.now()
        async with self._database.transaction() as connection:
            endpoint = await require_endpoint(connection, tenant, endpoint_id, lock=True)
            checks = FieldChecks()
            same_kind = "" if secret else endpoint.signature_kind
            key = choose_key(checks, kind or same_kind, secret)
            checks.done()
            assert key is not None
            if await repository.count_secrets(connection, endpoint_id, now) >= SECRETS_MAX:
                raise PreconditionError(
                    f"At most {SECRETS_MAX} secrets can sign at a time; each ends 24 h after the"
                    " next was made",
                    reason="too_many_secrets",
                )
            await repository.expire_current_secret(connection, endpoint_id, now + SECRET_OVERLAP)
            sealed = seal_secret(self._sealer, endpoint_id, key)
            await repository.insert_secret(connection, endpoint_id, key, sealed, now)
            details = audited.rotation(endpoint.signature_kind, key.kind, own=bool(secret))
            await audited.note(connection, tenant, "secret_rotated", endpoint_id, by_key, details)
        log.info("endpoint_secret_rotated", endpoint_id=endpoint_id, kind=key.kind)
        return key

    async def send_test(self, tenant: TenantKey, endpoint_id: str) -> Delivery:
        """Send a "webhook.test" event to one endpoint, whatever it subscribed to.

        PreconditionError when it is disabled.
        """
        now = clock.now()
        async with self._database.transaction() as connection:
            endpoint = await require_endpoint(connection, tenant, endpoint_id)
            require_enabled(endpoint)
            event = _test_event(endpoint, now)
            await repository.insert_events(connection, [event])
            ids = await repository.insert_deliveries(connection, [(event, endpoint)], now, now)
            delivery = await require_delivery(connection, tenant, ids[0])
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
            unknown = [event for event in by_id.values() if event.id in new_ids]
            # One that the inbox has forgotten (maintenance.py) may still be stored.
            stored = await repository.insert_events(connection, unknown)
            fresh = [event for event in unknown if event.id in stored]
            tenants = list({event.tenant for event in fresh})
            subscribed = await repository.endpoints_of(connection, tenants)
            pairs = [
                (event, endpoint)
                for event in fresh
                for endpoint in subscribed[event.tenant]
                if endpoint.takes(event.type)
            ]
            await repository.insert_deliveries(connection, pairs, now, now + self._first_delay)
        if pairs:
            self._due()
        return len(pairs)


def _test_event(endpoint: Endpoint, now: datetime) -> WebhookEvent:
    data_json = f'{{"endpointId":"{endpoint.id}"}}'
    body = webhook_body(TEST_EVENT_TYPE, now, data_json)
    return WebhookEvent(new_id("whevt"), endpoint.tenant, TEST_EVENT_TYPE, now, body)
