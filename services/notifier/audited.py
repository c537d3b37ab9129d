"""What the audit log is told of endpoints: never a secret, nor the value of a header."""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit.audit import add_audit_event, audit_event, changes
from services.kit.database import TenantKey
from services.notifier.domain import Endpoint
from services.notifier.tables import audit_outbox

_KINDS = {"v1": "HMAC_SHA256", "v1a": "ED25519"}


async def note(
    connection: AsyncConnection,
    tenant: TenantKey,
    what: str,
    endpoint_id: str,
    by_key: str,
    details: Mapping[str, object],
) -> None:
    """Tell the audit log what was done to an endpoint, when the caller's transaction commits.

    `by_key` is the API key of who did it, "" for UsageFlow itself.
    """
    event = audit_event(
        tenant, f"webhook.{what}", target_id=endpoint_id, key_id=by_key, details=details
    )
    await add_audit_event(connection, audit_outbox, event)


def shown(endpoint: Endpoint) -> dict[str, object]:
    """An endpoint as the audit log shows it, with the names of the HTTP contract."""
    return {
        "url": endpoint.url,
        "events": list(endpoint.event_types),
        "description": endpoint.description,
        "enabled": endpoint.enabled,
        "rateLimit": endpoint.rate_limit,
        "headerNames": list(endpoint.header_names),
        "signature": _KINDS[endpoint.signature_kind],
    }


def changed(before: Endpoint, after: Endpoint, *, headers_sent: bool) -> dict[str, object]:
    """What differs, before and after; {} when nothing does.

    Headers are sealed, so whether their values differ nobody knows: `headers_sent` tells that some
    were sent.
    """
    details = changes(shown(before), shown(after))
    if headers_sent and (before.header_names or after.header_names):
        details["headersSet"] = True
    return details


def rotation(before: str, after: str, *, own: bool) -> dict[str, object]:
    """Which kinds of signature a rotation went from and to; `own`: the secret is the caller's."""
    return {"before": _KINDS[before], "after": _KINDS[after], "ownSecret": own}
