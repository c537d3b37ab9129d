"""What callers see and ask of deliveries: lists, one with all its attempts, replays, figures."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from services.kit import clock, pages
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldChecks, NotFoundError
from services.kit.ids import is_id
from services.notifier import delivery_repository, replay_repository
from services.notifier.domain import Delivery, DeliveryFilter, EndpointStats
from services.notifier.filters import unknown_patterns
from services.notifier.lookup import require_delivery, require_enabled, require_endpoint
from services.notifier.replay_repository import Page, Place

REPLAYED_AT_ONCE_MAX = 1_000
STATS_RANGE = timedelta(hours=24)  # unless asked for another
BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)  # before anything was delivered

# What is replayed of a time range.
FAILED, ALL, MISSED = "failed", "all", "missed"
_STATUSES = {FAILED: ("failed",), ALL: ("failed", "succeeded")}


class Deliveries:
    """The use cases. Each is one transaction, committed before it returns.

    `due` is called after a commit that made deliveries due, so that a worker looks at once.
    """

    def __init__(self, database: Database, *, due: Callable[[], None]) -> None:
        self._database = database
        self._due = due

    async def list(
        self, tenant: TenantKey, wanted: DeliveryFilter, page_size: int, page_token: str
    ) -> tuple[list[Delivery], str]:
        """A page of deliveries with their last attempts, newest first, and the next token."""
        limit = pages.page_limit(page_size)
        before = _place(page_token, "whd")
        _check_filter(wanted)
        async with self._database.transaction() as connection:
            if wanted.endpoint_id:
                await require_endpoint(connection, tenant, wanted.endpoint_id)
            found = await delivery_repository.list_deliveries(
                connection, tenant, wanted, before=before, limit=limit + 1
            )
        if len(found) <= limit:
            return found, ""
        return found[:limit], _token((found[limit - 1].create_time, found[limit - 1].id))

    async def get(self, tenant: TenantKey, delivery_id: str) -> Delivery:
        """One delivery with its payload and attempts. NotFoundError."""
        if not is_id(delivery_id, "whd"):
            raise NotFoundError("No such delivery")
        async with self._database.transaction() as connection:
            return await require_delivery(connection, tenant, delivery_id)

    async def replay(self, tenant: TenantKey, delivery_id: str) -> Delivery:
        """Send a delivery again, at once, with the same webhook-id.

        A second click changes nothing. NotFoundError also when its endpoint was deleted,
        PreconditionError when that is disabled.
        """
        async with self._database.transaction() as connection:
            if not is_id(delivery_id, "whd") or not await delivery_repository.replay_delivery(
                connection, tenant, delivery_id, clock.now()
            ):
                raise NotFoundError("No such delivery")
            delivery = await require_delivery(connection, tenant, delivery_id)
            require_enabled(await require_endpoint(connection, tenant, delivery.endpoint_id))
        self._due()
        return delivery

    async def replay_many(
        self,
        tenant: TenantKey,
        endpoint_id: str,
        scope: str,
        from_time: datetime | None,
        to_time: datetime | None,
        page_token: str,
    ) -> tuple[int, str]:
        """Send a page of an endpoint's deliveries again: how many, and the next page's token.

        `scope` "failed", "all", or "missed": events that it takes now but never got.
        """
        now = clock.now()
        start, end = from_time or BEGINNING, min(to_time or now, now)
        after = _place(page_token, "whevt" if scope == MISSED else "whd") or (start, "")
        async with self._database.transaction() as connection:
            endpoint = await require_endpoint(connection, tenant, endpoint_id)
            require_enabled(endpoint)
            page = Page(after, end, REPLAYED_AT_ONCE_MAX)
            if scope == MISSED:
                count, places = await replay_repository.deliver_missed(
                    connection, endpoint, page, now
                )
            else:
                places = await replay_repository.replay(
                    connection, endpoint_id, _STATUSES[scope], page, now
                )
                count = len(places)
        if count:
            self._due()
        return count, _token(places[-1]) if len(places) == REPLAYED_AT_ONCE_MAX else ""

    async def stats(
        self,
        tenant: TenantKey,
        endpoint_id: str,
        from_time: datetime | None,
        to_time: datetime | None,
    ) -> EndpointStats:
        """What became of the deliveries of a time range, the last 24 hours unless given."""
        end = to_time or clock.now()
        start = from_time or end - STATS_RANGE
        async with self._database.transaction() as connection:
            await require_endpoint(connection, tenant, endpoint_id)
            return await delivery_repository.endpoint_stats(connection, endpoint_id, start, end)


def _check_filter(wanted: DeliveryFilter) -> None:
    checks = FieldChecks()
    known = not wanted.event_type or not unknown_patterns([wanted.event_type])
    checks.require(known, "type", "must be an event type, or take some with *, as invoice.* does")
    checks.done()


def _place(page_token: str, prefix: str) -> Place | None:
    """Where a page begins, from the token of the page before."""
    if not page_token:
        return None
    time_text, row_id = pages.decode_token(page_token, 2)
    try:
        time = datetime.fromisoformat(time_text)
    except ValueError:
        raise pages.invalid_token() from None
    if time.tzinfo is None or not row_id.startswith(prefix + "_"):
        raise pages.invalid_token()
    return time, row_id


def _token(place: Place) -> str:
    return pages.encode_token(place[0].isoformat(), place[1])
