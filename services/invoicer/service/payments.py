"""How customers pay, and the attempts to have invoices paid."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer import audited
from services.invoicer.checks import is_customer_id
from services.invoicer.domain import check_failable
from services.invoicer.payments.domain import REFERENCE_CHARS_MAX, Attempt, PaymentMethod
from services.invoicer.payments.settling import check_not_being_paid
from services.invoicer.repository import customers, payments
from services.invoicer.service.locking import lock_invoice, require_invoice
from services.invoicer.service.noting import note
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldChecks, NotFoundError, PreconditionError
from services.kit.etag import Expectation

_PREFIXES = {"stripeCustomer": "cus_", "stripePaymentMethod": "pm_"}


class Payments:
    """What the collector works with, and what has come of it."""

    def __init__(
        self, database: Database, now: Callable[[], datetime], wake_collector: Callable[[], None]
    ) -> None:
        self._database = database
        self._now = now
        self._wake_collector = wake_collector

    async def set_method(
        self,
        tenant: TenantKey,
        customer_id: str,
        method: PaymentMethod,
        *,
        by_key: str,
        expect: Expectation[PaymentMethod] | None = None,
    ) -> None:
        """Charge this from now on. InvalidArgumentError, NotFoundError; StaleError when what is
        charged now is not as `expect` has it.
        """
        checks = FieldChecks()
        names = zip(
            _PREFIXES.items(), (method.provider_customer, method.provider_method), strict=True
        )
        for (field, prefix), name in names:
            fits = name.startswith(prefix) and len(name) <= REFERENCE_CHARS_MAX
            plain = name.isascii() and name.replace("_", "").isalnum()
            message = f"must begin with {prefix} and have at most {REFERENCE_CHARS_MAX} characters"
            checks.require(fits and plain, field, message)
        checks.done()
        async with self._database.transaction() as connection:
            await _require_customer(connection, tenant, customer_id, lock=True)
            before = await payments.get_method(connection, tenant, customer_id)
            if expect is not None:
                expect(before)
            if before == method:
                return
            await payments.put_method(connection, tenant, customer_id, method, self._now())
            # The provider's names of things are not for the audit log.
            await note(connection, tenant, "payment_method.set", by_key, customer_id, {})

    async def get_method(self, tenant: TenantKey, customer_id: str) -> PaymentMethod:
        """What is charged; NotFoundError."""
        async with self._database.transaction() as connection:
            await _require_customer(connection, tenant, customer_id)
            found = await payments.get_method(connection, tenant, customer_id)
        if found is None:
            raise NotFoundError("The customer has no payment method")
        return found

    async def remove_method(
        self,
        tenant: TenantKey,
        customer_id: str,
        *,
        by_key: str,
        expect: Expectation[PaymentMethod] | None = None,
    ) -> None:
        """Charge it no more; repeating it changes nothing. NotFoundError: no such customer;
        StaleError when it is not as `expect` has it.
        """
        async with self._database.transaction() as connection:
            await _require_customer(connection, tenant, customer_id, lock=True)
            before = await payments.get_method(connection, tenant, customer_id)
            if expect is not None:
                expect(before)
            if before is None:
                return
            await payments.delete_method(connection, tenant, customer_id)
            await note(connection, tenant, "payment_method.removed", by_key, customer_id, {})

    async def list_attempts(
        self, tenant: TenantKey, invoice_id: str
    ) -> tuple[list[Attempt], datetime | None]:
        """All attempts, oldest first, and when the next one is due; None: none by itself."""
        async with self._database.transaction() as connection:
            await require_invoice(connection, tenant, invoice_id)
            found = await payments.attempts_of(connection, tenant, invoice_id)
            following = await payments.next_attempt_time(connection, tenant, invoice_id)
        return found, following

    async def collect_invoice(self, tenant: TenantKey, invoice_id: str) -> datetime:
        """Collect an open invoice now; the time of it, by its customer's test clock if any.

        PreconditionError, NotFoundError.
        """
        async with self._database.transaction() as connection:
            locked = await lock_invoice(connection, tenant, invoice_id, self._now())
            check_failable(locked.invoice)
            await check_not_being_paid(connection, tenant, invoice_id)
            if not await payments.collect(connection, tenant, [invoice_id], locked.now):
                raise PreconditionError(
                    "The invoice can't be collected: the organization has no provider, or the "
                    "customer no payment method with it",
                    reason="not_collectable",
                )
            shown = audited.invoice(locked.invoice)
            await audited.note(connection, tenant, "invoice.collected", invoice_id, shown)
        self._wake_collector()
        return locked.now


async def _require_customer(
    connection: AsyncConnection, tenant: TenantKey, customer_id: str, *, lock: bool = False
) -> None:
    """NotFoundError; with `lock` nobody else changes how they pay until the transaction ends."""
    found = None
    if is_customer_id(customer_id):
        found = await customers.get_customer(connection, tenant, customer_id, lock=lock)
    if found is None:
        raise NotFoundError("No such customer")
