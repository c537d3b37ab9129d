"""Finding what a caller named, and where a page begins. Used by every use case."""

from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit import pages
from services.kit.database import TenantKey
from services.kit.errors import NotFoundError, PreconditionError
from services.kit.ids import is_id
from services.notifier import delivery_repository, repository
from services.notifier.domain import Delivery, Endpoint


def page(page_size: int, page_token: str, prefix: str) -> tuple[int, str | None]:
    limit = pages.page_limit(page_size)
    before_id = pages.decode_token(page_token, 1)[0] if page_token else None
    if before_id is not None and not is_id(before_id, prefix):
        raise pages.invalid_token()
    return limit, before_id


async def require_endpoint(
    connection: AsyncConnection, tenant: TenantKey, endpoint_id: str, *, lock: bool = False
) -> Endpoint:
    endpoint = None
    if is_id(endpoint_id, "whe"):
        endpoint = await repository.get_endpoint(connection, tenant, endpoint_id, lock=lock)
    if endpoint is None:
        raise NotFoundError("No such webhook endpoint")
    return endpoint


async def require_delivery(
    connection: AsyncConnection, tenant: TenantKey, delivery_id: str
) -> Delivery:
    delivery = await delivery_repository.get_delivery(connection, tenant, delivery_id)
    if delivery is None:
        raise NotFoundError("No such delivery")
    return delivery


def require_enabled(endpoint: Endpoint) -> None:
    """PreconditionError when the endpoint is disabled."""
    if not endpoint.enabled:
        raise PreconditionError("The webhook endpoint is disabled", reason="endpoint_disabled")
