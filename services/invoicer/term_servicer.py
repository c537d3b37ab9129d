"""Translates between proto and domain for billing terms; decides nothing but who may call."""

from usageflow.invoicer.v1 import billing_terms_pb2 as pb
from usageflow.invoicer.v1.billing_terms_pb2_grpc import BillingTermsServiceServicer

from services.invoicer import messages, term_messages
from services.invoicer.service.charges import Charges
from services.invoicer.service.credit_notes import CreditNotes
from services.invoicer.service.discounts import Discounts
from services.invoicer.service.paging import Page
from services.invoicer.service.taxes import Taxes
from services.invoicer.term_checks import TaxRateInput
from services.kit.auth import require_scope
from services.kit.etag import expecting


class BillingTermsServicer(BillingTermsServiceServicer):
    """What callers with an API key may do, in their own organization and mode."""

    def __init__(
        self, discounts: Discounts, charges: Charges, taxes: Taxes, credit_notes: CreditNotes
    ) -> None:
        self._discounts = discounts
        self._credit_notes = credit_notes
        self._charges = charges
        self._taxes = taxes

    async def CreateDiscount(
        self, request: pb.CreateDiscountRequest, context: object
    ) -> pb.CreateDiscountResponse:
        """Give a subscription a discount."""
        tenant = require_scope("admin").tenant
        made = await self._discounts.create_discount(
            tenant, request.subscription_id, messages.discount_input(request.discount)
        )
        return pb.CreateDiscountResponse(discount=term_messages.discount(made))

    async def ListDiscounts(
        self, request: pb.ListDiscountsRequest, context: object
    ) -> pb.ListDiscountsResponse:
        """A subscription's discounts."""
        tenant = require_scope("read").tenant
        found = await self._discounts.list_discounts(tenant, request.subscription_id)
        return pb.ListDiscountsResponse(discounts=[term_messages.discount(each) for each in found])

    async def EndDiscount(
        self, request: pb.EndDiscountRequest, context: object
    ) -> pb.EndDiscountResponse:
        """End a discount."""
        tenant = require_scope("admin").tenant
        ended = await self._discounts.end_discount(tenant, request.discount_id)
        return pb.EndDiscountResponse(discount=term_messages.discount(ended))

    async def CreateCharge(
        self, request: pb.CreateChargeRequest, context: object
    ) -> pb.CreateChargeResponse:
        """Charge a customer once."""
        tenant = require_scope("admin").tenant
        made, replayed = await self._charges.create_charge(
            tenant, term_messages.charge_input(request)
        )
        return pb.CreateChargeResponse(charge=term_messages.charge(made), replayed=replayed)

    async def GetCharge(
        self, request: pb.GetChargeRequest, context: object
    ) -> pb.GetChargeResponse:
        """A charge."""
        tenant = require_scope("read").tenant
        found = await self._charges.get_charge(tenant, request.charge_id)
        return pb.GetChargeResponse(charge=term_messages.charge(found))

    async def ListCharges(
        self, request: pb.ListChargesRequest, context: object
    ) -> pb.ListChargesResponse:
        """A page of charges."""
        tenant = require_scope("read").tenant
        page = Page(request.page_size, request.page_token)
        found, token = await self._charges.list_charges(tenant, request.customer_id, page)
        return pb.ListChargesResponse(
            charges=[term_messages.charge(each) for each in found], next_page_token=token
        )

    async def DeleteCharge(
        self, request: pb.DeleteChargeRequest, context: object
    ) -> pb.DeleteChargeResponse:
        """Take back a charge that waits."""
        tenant = require_scope("admin").tenant
        expect = expecting(request.if_match, term_messages.charge)
        await self._charges.delete_charge(tenant, request.charge_id, expect=expect)
        return pb.DeleteChargeResponse()

    async def CreateTaxRate(
        self, request: pb.CreateTaxRateRequest, context: object
    ) -> pb.CreateTaxRateResponse:
        """A new tax rate."""
        tenant = require_scope("admin").tenant
        given = TaxRateInput(
            request.tax_rate.name, request.tax_rate.percent, request.tax_rate.inclusive
        )
        made = await self._taxes.create_tax_rate(tenant, given)
        return pb.CreateTaxRateResponse(tax_rate=term_messages.tax_rate(made))

    async def GetTaxRate(
        self, request: pb.GetTaxRateRequest, context: object
    ) -> pb.GetTaxRateResponse:
        """A tax rate."""
        tenant = require_scope("read").tenant
        found = await self._taxes.get_tax_rate(tenant, request.tax_rate_id)
        return pb.GetTaxRateResponse(tax_rate=term_messages.tax_rate(found))

    async def ListTaxRates(
        self, request: pb.ListTaxRatesRequest, context: object
    ) -> pb.ListTaxRatesResponse:
        """A page of tax rates."""
        tenant = require_scope("read").tenant
        page = Page(request.page_size, request.page_token)
        found, token = await self._taxes.list_tax_rates(tenant, page)
        return pb.ListTaxRatesResponse(
            tax_rates=[term_messages.tax_rate(each) for each in found], next_page_token=token
        )

    async def AssignTaxRates(
        self, request: pb.AssignTaxRatesRequest, context: object
    ) -> pb.AssignTaxRatesResponse:
        """Set whose rates are which."""
        tenant = require_scope("admin").tenant
        assigned = await self._taxes.assign_tax_rates(
            tenant,
            request.customer_id,
            term_messages.assigned_ids(request),
            expecting(request.if_match, term_messages.assigned),
        )
        return pb.AssignTaxRatesResponse(assigned=term_messages.assigned(assigned))

    async def GetAssignedTaxRates(
        self, request: pb.GetAssignedTaxRatesRequest, context: object
    ) -> pb.GetAssignedTaxRatesResponse:
        """Whose rates are which."""
        tenant = require_scope("read").tenant
        assigned = await self._taxes.get_assigned_tax_rates(tenant, request.customer_id)
        return pb.GetAssignedTaxRatesResponse(assigned=term_messages.assigned(assigned))

    async def CreateCreditNote(
        self, request: pb.CreateCreditNoteRequest, context: object
    ) -> pb.CreateCreditNoteResponse:
        """Credit an invoice."""
        tenant = require_scope("admin").tenant
        made, replayed = await self._credit_notes.create_credit_note(
            tenant, term_messages.credit_note_input(request)
        )
        return pb.CreateCreditNoteResponse(
            credit_note=term_messages.credit_note(made), replayed=replayed
        )

    async def GetCreditNote(
        self, request: pb.GetCreditNoteRequest, context: object
    ) -> pb.GetCreditNoteResponse:
        """A credit note."""
        tenant = require_scope("read").tenant
        found = await self._credit_notes.get_credit_note(tenant, request.credit_note_id)
        return pb.GetCreditNoteResponse(credit_note=term_messages.credit_note(found))

    async def ListCreditNotes(
        self, request: pb.ListCreditNotesRequest, context: object
    ) -> pb.ListCreditNotesResponse:
        """A page of credit notes."""
        tenant = require_scope("read").tenant
        page = Page(request.page_size, request.page_token)
        found, token = await self._credit_notes.list_credit_notes(
            tenant, request.customer_id, request.invoice_id, page
        )
        return pb.ListCreditNotesResponse(
            credit_notes=[term_messages.credit_note(each) for each in found],
            next_page_token=token,
        )
