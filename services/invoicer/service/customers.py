"""Customers."""

from collections.abc import Callable
from datetime import datetime

from services.invoicer import audited
from services.invoicer.checks import CustomerInput, check_customer, is_customer_id
from services.invoicer.domain import Customer
from services.invoicer.repository import customers
from services.invoicer.service.paging import Page, customer_position
from services.kit import pages
from services.kit.audit import changes
from services.kit.database import Database, TenantKey
from services.kit.errors import NotFoundError
from services.kit.etag import Expectation


class Customers:
    """Whom the organization bills."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    async def put_customer(
        self,
        tenant: TenantKey,
        given: CustomerInput,
        expect: Expectation[Customer] | None = None,
    ) -> tuple[Customer, bool]:
        """Make a customer or change the one there is; whether it was made.

        StaleError, and nothing is made or changed, when it is not as `expect` has it.
        """
        values = check_customer(given)
        async with self._database.transaction() as connection:
            before = await customers.get_customer(connection, tenant, given.id, lock=True)
            if expect is not None:
                expect(before)
            after, made = await customers.put_customer(
                connection, tenant, given.id, values, self._now()
            )
            shown = audited.customer(after)
            if made:
                await audited.note(connection, tenant, "customer.created", after.id, shown)
            elif changed := changes({} if before is None else audited.customer(before), shown):
                await audited.note(connection, tenant, "customer.updated", after.id, changed)
        return after, made

    async def get_customer(self, tenant: TenantKey, customer_id: str) -> Customer:
        """The customer."""
        if not is_customer_id(customer_id):
            raise NotFoundError("No such customer")
        async with self._database.transaction() as connection:
            found = await customers.get_customer(connection, tenant, customer_id)
        if found is None:
            raise NotFoundError("No such customer")
        return found

    async def list_customers(self, tenant: TenantKey, page: Page) -> tuple[list[Customer], str]:
        """A page of customers, newest first, and the next page's token ("" after the last)."""
        limit = pages.page_limit(page.size)
        before = customer_position(page.token)
        async with self._database.transaction() as connection:
            found = await customers.list_customers(
                connection, tenant, before=before, limit=limit + 1
            )
        if len(found) <= limit:
            return found, ""
        last = found[limit - 1]
        return found[:limit], pages.encode_token(last.create_time.isoformat(), last.id)
