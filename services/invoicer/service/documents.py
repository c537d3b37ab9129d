"""Invoices for people, and who issues them."""

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum

from services.invoicer import audited
from services.invoicer.issuers import VERSIONS_MAX, Issuer, check_issuer
from services.invoicer.rendering.html import html_of
from services.invoicer.rendering.pdf import PdfRenderer
from services.invoicer.rendering.view import view_of
from services.invoicer.repository import customers, issuers
from services.invoicer.service.locking import require_invoice
from services.kit.audit import changes
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldProblem, InvalidArgumentError, PreconditionError
from services.kit.etag import Expectation


class RenderFormat(StrEnum):
    """What to make of an invoice; the value ends its file's name."""

    PDF = "pdf"
    HTML = "html"


class Documents:
    """What people see of invoices."""

    def __init__(
        self, database: Database, now: Callable[[], datetime], renderer: PdfRenderer
    ) -> None:
        self._database = database
        self._now = now
        self._renderer = renderer

    async def get_issuer(self, tenant: TenantKey) -> Issuer:
        """What was set last."""
        async with self._database.transaction() as connection:
            issuer, _ = await issuers.get_issuer(connection, tenant)
        return issuer

    async def set_issuer(
        self, tenant: TenantKey, issuer: Issuer, *, expect: Expectation[Issuer] | None = None
    ) -> Issuer:
        """Set it for invoices from now on; the same again changes nothing.

        PreconditionError when it was changed too often; StaleError when it is not as `expect` has
        it.
        """
        check_issuer(issuer)
        if issuer.logo and not await self._renderer.can_show(issuer.logo):
            problem = FieldProblem("logo", "must be a PNG or JPEG that can be read")
            raise InvalidArgumentError([problem])
        async with self._database.transaction() as connection:
            await issuers.lock_issuer(connection, tenant)
            before, version = await issuers.get_issuer(connection, tenant)
            if expect is not None:
                expect(before)
            if version and before == issuer:
                return issuer
            if version >= VERSIONS_MAX:
                message = f"The issuer was changed {VERSIONS_MAX:,} times, and can't be any more"
                raise PreconditionError(message, reason="issuer_versions_max")
            await issuers.insert_issuer(connection, tenant, issuer, version + 1, self._now())
            changed = changes(audited.issuer(before), audited.issuer(issuer))
            await audited.note(connection, tenant, "issuer.updated", "", changed)
        return issuer

    async def render_invoice(
        self, tenant: TenantKey, invoice_id: str, wanted: RenderFormat
    ) -> tuple[bytes, str, str]:
        """An invoice as a file, the file's name, and whose it is; NotFoundError. UnavailableError:
        too busy.
        """
        async with self._database.transaction() as connection:
            invoice = await require_invoice(connection, tenant, invoice_id)
            customer = await customers.get_customer(connection, tenant, invoice.customer_id)
            at = invoice.finalize_time or self._now()
            issuer = await issuers.issuer_at(connection, tenant, at)
        assert customer is not None, "an invoice refers to its customer"
        view = view_of(invoice, customer, issuer)
        name = f"{invoice.number}.{wanted.value}"
        if wanted is RenderFormat.HTML:
            return html_of(view).encode(), name, customer.id
        return await self._renderer.render(view), name, customer.id
