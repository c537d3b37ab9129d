"""Translates between proto and domain how invoices are paid; decides nothing but who may call."""

from usageflow.invoicer.v1 import payments_pb2 as pb
from usageflow.invoicer.v1.payments_pb2_grpc import PaymentsServiceServicer

from services.invoicer import payment_messages
from services.invoicer.messages import timestamp
from services.invoicer.payments.domain import PaymentMethod, ProviderName
from services.invoicer.service.payments import Payments
from services.kit.auth import require_scope
from services.kit.etag import expecting


class PaymentsServicer(PaymentsServiceServicer):
    """What callers may do in their own organization and mode."""

    def __init__(self, payments: Payments) -> None:
        self._payments = payments

    async def SetPaymentMethod(
        self, request: pb.SetPaymentMethodRequest, context: object
    ) -> pb.SetPaymentMethodResponse:
        """What of a customer's is charged."""
        principal, given = require_scope("admin"), request.payment_method
        method = PaymentMethod(
            ProviderName.STRIPE, given.stripe_customer, given.stripe_payment_method
        )
        await self._payments.set_method(
            principal.tenant,
            request.customer_id,
            method,
            by_key=principal.actor_id,
            expect=expecting(request.if_match, payment_messages.method),
        )
        return pb.SetPaymentMethodResponse(payment_method=payment_messages.method(method))

    async def GetPaymentMethod(
        self, request: pb.GetPaymentMethodRequest, context: object
    ) -> pb.GetPaymentMethodResponse:
        """The same."""
        tenant = require_scope("read").tenant
        found = await self._payments.get_method(tenant, request.customer_id)
        return pb.GetPaymentMethodResponse(payment_method=payment_messages.method(found))

    async def RemovePaymentMethod(
        self, request: pb.RemovePaymentMethodRequest, context: object
    ) -> pb.RemovePaymentMethodResponse:
        """Charge it no more."""
        principal = require_scope("admin")
        await self._payments.remove_method(
            principal.tenant,
            request.customer_id,
            by_key=principal.actor_id,
            expect=expecting(request.if_match, payment_messages.method),
        )
        return pb.RemovePaymentMethodResponse()

    async def ListPaymentAttempts(
        self, request: pb.ListPaymentAttemptsRequest, context: object
    ) -> pb.ListPaymentAttemptsResponse:
        """All attempts of an invoice."""
        tenant = require_scope("read").tenant
        found, following = await self._payments.list_attempts(tenant, request.invoice_id)
        return pb.ListPaymentAttemptsResponse(
            attempts=[payment_messages.attempt(each) for each in found],
            next_attempt_time=timestamp(following),
        )

    async def CollectInvoice(
        self, request: pb.CollectInvoiceRequest, context: object
    ) -> pb.CollectInvoiceResponse:
        """Have an invoice collected now."""
        tenant = require_scope("admin").tenant
        now = await self._payments.collect_invoice(tenant, request.invoice_id)
        return pb.CollectInvoiceResponse(next_attempt_time=timestamp(now))
