"""Tax rates."""

from collections.abc import Callable, Sequence
from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer import audited
from services.invoicer.checks import is_customer_id
from services.invoicer.repository import customers, taxes
from services.invoicer.service.paging import Page, id_position, next_token
from services.invoicer.taxes import TaxRate, TaxRates
from services.invoicer.term_checks import TAX_RATES_MAX, TaxRateInput, check_tax_rate
from services.kit import pages
from services.kit.audit import changes
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldChecks, NotFoundError
from services.kit.etag import Expectation
from services.kit.ids import is_id, new_id

log = structlog.get_logger()


class Taxes:
    """Rates, which never change, and the customers whose invoices have them."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    async def create_tax_rate(self, tenant: TenantKey, given: TaxRateInput) -> TaxRate:
        """A new rate, which nobody has yet."""
        checks = FieldChecks()
        rate_percent = check_tax_rate(checks, given)
        checks.done()
        rate = TaxRate(new_id("tax"), given.name, rate_percent, given.inclusive, self._now())
        async with self._database.transaction() as connection:
            await taxes.insert_rate(connection, tenant, rate)
            shown = audited.tax_rate(rate)
            await audited.note(connection, tenant, "tax_rate.created", rate.id, shown)
        log.info("tax_rate_created", tax_rate_id=rate.id)
        return rate

    async def get_tax_rate(self, tenant: TenantKey, rate_id: str) -> TaxRate:
        """The rate."""
        found: list[TaxRate] = []
        if is_id(rate_id, "tax"):
            async with self._database.transaction() as connection:
                found = await taxes.get_rates(connection, tenant, [rate_id])
        if not found:
            raise NotFoundError("No such tax rate")
        return found[0]

    async def list_tax_rates(self, tenant: TenantKey, page: Page) -> tuple[list[TaxRate], str]:
        """A page of rates, newest first."""
        limit, before_id = pages.page_limit(page.size), id_position(page.token, "tax")
        async with self._database.transaction() as connection:
            found = await taxes.list_rates(connection, tenant, before_id=before_id, limit=limit + 1)
        return found[:limit], next_token([rate.id for rate in found], limit)

    async def assign_tax_rates(
        self,
        tenant: TenantKey,
        customer_id: str,
        rate_ids: Sequence[str] | None,
        expect: Expectation[TaxRates] | None = None,
    ) -> TaxRates:
        """Set the rates of a customer, or ("") of all without rates of their own.

        They apply to invoices that are computed from then on. None: the customer has none of his
        own any more; no ids: no tax. StaleError when they are not as `expect` has them.
        """
        async with self._database.transaction() as connection:
            await _require_customer(connection, tenant, customer_id)
            await _check_rates(connection, tenant, rate_ids or ())
            await taxes.lock_assigned(connection, tenant)
            before = await taxes.get_assigned(connection, tenant, customer_id)
            if expect is not None:
                expect(before)
            await taxes.assign(connection, tenant, customer_id, rate_ids)
            assigned = await taxes.get_assigned(connection, tenant, customer_id)
            if changed := changes(audited.tax_rates(before), audited.tax_rates(assigned)):
                action = "tax_rates.assigned"
                await audited.note(connection, tenant, action, customer_id, changed)
        log.info("tax_rates_assigned", rates=len(assigned.rates))
        return assigned

    async def get_assigned_tax_rates(self, tenant: TenantKey, customer_id: str) -> TaxRates:
        """The rates of a customer, or ("") of all without rates of their own."""
        async with self._database.transaction() as connection:
            await _require_customer(connection, tenant, customer_id)
            return await taxes.get_assigned(connection, tenant, customer_id)


async def _require_customer(
    connection: AsyncConnection, tenant: TenantKey, customer_id: str
) -> None:
    if not customer_id:
        return
    found = None
    if is_customer_id(customer_id):
        found = await customers.get_customer(connection, tenant, customer_id)
    if found is None:
        raise NotFoundError("No such customer")


async def _check_rates(
    connection: AsyncConnection, tenant: TenantKey, rate_ids: Sequence[str]
) -> None:
    checks = FieldChecks()
    few = len(rate_ids) <= TAX_RATES_MAX
    checks.require(few, "taxRateIds", f"must be at most {TAX_RATES_MAX}")
    once = len(set(rate_ids)) == len(rate_ids)
    checks.require(once, "taxRateIds", "must not contain one twice")
    checks.done()
    known = [rate_id for rate_id in rate_ids if is_id(rate_id, "tax")]
    found = await taxes.get_rates(connection, tenant, known)
    there = {rate.id for rate in found}
    for index, rate_id in enumerate(rate_ids):
        checks.require(rate_id in there, f"taxRateIds[{index}]", "there is no such tax rate")
    one_kind = len({rate.inclusive for rate in found}) <= 1
    checks.require(one_kind, "taxRateIds", "must be all inclusive or all not")
    checks.done()
