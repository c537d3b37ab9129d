"""Invoices and their subscriptions, locked in the order that everybody locks them in."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.clocks import now_of
from services.invoicer.domain import Invoice
from services.invoicer.payments.settling import Locked
from services.invoicer.repository import clocks, invoices
from services.invoicer.service.subscriptions import require_subscription
from services.kit.database import TenantKey
from services.kit.errors import NotFoundError
from services.kit.ids import is_id


async def require_invoice(
    connection: AsyncConnection, tenant: TenantKey, invoice_id: str, *, lock: bool = False
) -> Invoice:
    """The invoice with its lines; NotFoundError. With `lock` nobody else changes it meanwhile."""
    found = None
    if is_id(invoice_id, "inv"):
        found = await invoices.get_invoice(connection, tenant, invoice_id, lock=lock)
    if found is None:
        raise NotFoundError("No such invoice")
    return found


async def lock_invoice(
    connection: AsyncConnection, tenant: TenantKey, invoice_id: str, real: datetime
) -> Locked:
    """An invoice and its subscription; NotFoundError. The invoice of a one-off charge has none.

    `real`: the time, if the customer is on no test clock.
    """
    subscription_id = (await require_invoice(connection, tenant, invoice_id)).subscription_id
    subscription = None
    if subscription_id:
        subscription = await require_subscription(connection, tenant, subscription_id, lock=True)
    invoice = await require_invoice(connection, tenant, invoice_id, lock=True)
    clock = await clocks.clock_of(connection, tenant, invoice.customer_id)
    return Locked(tenant, subscription, invoice, now_of(clock, real), real)
