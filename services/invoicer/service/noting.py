"""What is done, told to the audit log."""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.tables import audit_outbox
from services.kit.audit import add_audit_event, audit_event
from services.kit.tenant import TenantKey


async def note(
    connection: AsyncConnection,
    tenant: TenantKey,
    action: str,
    by_key: str,
    target_id: str,
    details: Mapping[str, object],
) -> None:
    """Tell the audit log, when the transaction commits."""
    event = audit_event(tenant, action, target_id=target_id, key_id=by_key, details=details)
    await add_audit_event(connection, audit_outbox, event)
