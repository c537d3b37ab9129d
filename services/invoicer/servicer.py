"""Translates between proto and domain; decides nothing but who may call."""

from collections.abc import Callable
from datetime import datetime

from usageflow.invoicer.v1 import invoicer_pb2 as pb
from usageflow.invoicer.v1.invoicer_pb2_grpc import InvoicerServiceServicer

from services.invoicer import messages
from services.invoicer.service.customers import Customers
from services.invoicer.service.invoices import Invoices
from services.invoicer.service.paging import Page
from services.invoicer.service.plans import Plans
from services.invoicer.service.revenue import Revenues
from services.invoicer.service.subscriptions import Subscriptions
from services.kit.auth import require_scope
from services.kit.database import TenantKey
from services.kit.etag import expecting


def _reader() -> TenantKey:
    """Whose data the caller may read."""
    return require_scope("read").tenant


def _admin() -> TenantKey:
    """Whose data the caller may change."""
    return require_scope("admin").tenant


class InvoicerServicer(InvoicerServiceServicer):
    """What callers with an API key may do, in their own organization and mode."""

    def __init__(
        self,
        customers: Customers,
        plans: Plans,
        subscriptions: Subscriptions,
        invoices: Invoices,
        revenues: Revenues,
        now: Callable[[], datetime],
    ) -> None:
        self._customers = customers
        self._plans = plans
        self._subscriptions = subscriptions
        self._invoices = invoices
        self._revenues = revenues
        self._now = now

    async def PutCustomer(
        self, request: pb.PutCustomerRequest, context: object
    ) -> pb.PutCustomerResponse:
        """Make a customer or change one."""
        tenant = _admin()
        customer, created = await self._customers.put_customer(
            tenant,
            messages.customer_input(request),
            expecting(request.if_match, messages.customer),
        )
        return pb.PutCustomerResponse(customer=messages.customer(customer), created=created)

    async def GetCustomer(
        self, request: pb.GetCustomerRequest, context: object
    ) -> pb.GetCustomerResponse:
        """A customer."""
        tenant = _reader()
        found = await self._customers.get_customer(tenant, request.customer_id)
        return pb.GetCustomerResponse(customer=messages.customer(found))

    async def ListCustomers(
        self, request: pb.ListCustomersRequest, context: object
    ) -> pb.ListCustomersResponse:
        """A page of customers."""
        tenant = _reader()
        page = Page(request.page_size, request.page_token)
        found, token = await self._customers.list_customers(tenant, page)
        return pb.ListCustomersResponse(
            customers=[messages.customer(each) for each in found], next_page_token=token
        )

    async def CreatePlan(
        self, request: pb.CreatePlanRequest, context: object
    ) -> pb.CreatePlanResponse:
        """A new plan."""
        caller = require_scope("admin")
        plan = await self._plans.create_plan(
            caller.tenant,
            messages.plan_input(request.plan),
            strict_metrics=caller.strict_metrics,
        )
        return pb.CreatePlanResponse(plan=messages.plan(plan))

    async def CreatePlanVersion(
        self, request: pb.CreatePlanVersionRequest, context: object
    ) -> pb.CreatePlanVersionResponse:
        """A plan's next version."""
        caller = require_scope("admin")
        plan = await self._plans.create_plan_version(
            caller.tenant,
            request.plan.id,
            messages.plan_input(request.plan),
            strict_metrics=caller.strict_metrics,
        )
        return pb.CreatePlanVersionResponse(plan=messages.plan(plan))

    async def GetPlan(self, request: pb.GetPlanRequest, context: object) -> pb.GetPlanResponse:
        """A version of a plan."""
        tenant = _reader()
        plan = await self._plans.get_plan(tenant, request.plan_id, request.version)
        return pb.GetPlanResponse(plan=messages.plan(plan))

    async def ListPlans(
        self, request: pb.ListPlansRequest, context: object
    ) -> pb.ListPlansResponse:
        """A page of plans."""
        tenant = _reader()
        page = Page(request.page_size, request.page_token)
        found, token = await self._plans.list_plans(tenant, page)
        return pb.ListPlansResponse(
            plans=[messages.plan(each) for each in found], next_page_token=token
        )

    async def QuotePlan(
        self, request: pb.QuotePlanRequest, context: object
    ) -> pb.QuotePlanResponse:
        """What a plan would cost."""
        _reader()
        return messages.quote(self._plans.quote_plan(messages.quote_input(request)))

    async def CreateSubscription(
        self, request: pb.CreateSubscriptionRequest, context: object
    ) -> pb.CreateSubscriptionResponse:
        """Put a customer on a plan."""
        tenant = _admin()
        made, replayed = await self._subscriptions.create_subscription(
            tenant, messages.subscription_input(request)
        )
        return pb.CreateSubscriptionResponse(
            subscription=messages.subscription(made, self._now()), replayed=replayed
        )

    async def GetSubscription(
        self, request: pb.GetSubscriptionRequest, context: object
    ) -> pb.GetSubscriptionResponse:
        """A subscription."""
        tenant = _reader()
        found = await self._subscriptions.get_subscription(tenant, request.subscription_id)
        return pb.GetSubscriptionResponse(subscription=messages.subscription(found, self._now()))

    async def ListSubscriptions(
        self, request: pb.ListSubscriptionsRequest, context: object
    ) -> pb.ListSubscriptionsResponse:
        """A page of subscriptions."""
        tenant = _reader()
        page = Page(request.page_size, request.page_token)
        found, token = await self._subscriptions.list_subscriptions(
            tenant, request.customer_id, page
        )
        now = self._now()
        return pb.ListSubscriptionsResponse(
            subscriptions=[messages.subscription(each, now) for each in found],
            next_page_token=token,
        )

    async def CancelSubscription(
        self, request: pb.CancelSubscriptionRequest, context: object
    ) -> pb.CancelSubscriptionResponse:
        """End a subscription, with its running period or now."""
        tenant = _admin()
        at = messages.timing(request.timing, pb.CHANGE_TIMING_PERIOD_END)
        found = await self._subscriptions.cancel_subscription(tenant, request.subscription_id, at)
        return pb.CancelSubscriptionResponse(subscription=messages.subscription(found, self._now()))

    async def PauseSubscription(
        self, request: pb.PauseSubscriptionRequest, context: object
    ) -> pb.PauseSubscriptionResponse:
        """Stop billing a subscription for a while."""
        tenant = _admin()
        found = await self._subscriptions.pause_subscription(
            tenant,
            request.subscription_id,
            messages.timing(request.timing, pb.CHANGE_TIMING_NOW),
            messages.time_or_none(request, "resume_time", "resumesAt"),
        )
        return pb.PauseSubscriptionResponse(subscription=messages.subscription(found, self._now()))

    async def ResumeSubscription(
        self, request: pb.ResumeSubscriptionRequest, context: object
    ) -> pb.ResumeSubscriptionResponse:
        """End a pause; make a suspended subscription active again."""
        tenant = _admin()
        found = await self._subscriptions.resume_subscription(tenant, request.subscription_id)
        return pb.ResumeSubscriptionResponse(subscription=messages.subscription(found, self._now()))

    async def GetInvoice(
        self, request: pb.GetInvoiceRequest, context: object
    ) -> pb.GetInvoiceResponse:
        """An invoice with its lines."""
        tenant = _reader()
        found = await self._invoices.get_invoice(tenant, request.invoice_id)
        return pb.GetInvoiceResponse(invoice=messages.invoice(found))

    async def ListInvoices(
        self, request: pb.ListInvoicesRequest, context: object
    ) -> pb.ListInvoicesResponse:
        """A page of invoices with their lines."""
        tenant = _reader()
        page = Page(request.page_size, request.page_token)
        found, token = await self._invoices.list_invoices(
            tenant, messages.invoice_filter(request), page
        )
        return pb.ListInvoicesResponse(
            invoices=[messages.invoice(each) for each in found], next_page_token=token
        )

    async def PreviewInvoice(
        self, request: pb.PreviewInvoiceRequest, context: object
    ) -> pb.PreviewInvoiceResponse:
        """What a subscription's period would cost now."""
        tenant = _reader()
        preview = await self._invoices.preview_invoice(tenant, request.subscription_id)
        return messages.preview(preview)

    async def GetRevenue(
        self, request: pb.GetRevenueRequest, context: object
    ) -> pb.GetRevenueResponse:
        """What a time has brought, and what accrues."""
        tenant = _reader()
        start = messages.time_or_none(request, "from", "from")
        end = messages.time_or_none(request, "to", "to")
        return messages.revenue(await self._revenues.get(tenant, start, end))

    async def PayInvoice(
        self, request: pb.PayInvoiceRequest, context: object
    ) -> pb.PayInvoiceResponse:
        """Mark an invoice paid."""
        tenant = _admin()
        found = await self._invoices.pay_invoice(tenant, request.invoice_id, request.reference)
        return pb.PayInvoiceResponse(invoice=messages.invoice(found))

    async def FailInvoice(
        self, request: pb.FailInvoiceRequest, context: object
    ) -> pb.FailInvoiceResponse:
        """Count a failed payment."""
        tenant = _admin()
        found = await self._invoices.fail_invoice(tenant, request.invoice_id, request.reference)
        return pb.FailInvoiceResponse(invoice=messages.invoice(found))

    async def VoidInvoice(
        self, request: pb.VoidInvoiceRequest, context: object
    ) -> pb.VoidInvoiceResponse:
        """Declare an invoice void."""
        tenant = _admin()
        found = await self._invoices.void_invoice(tenant, request.invoice_id)
        return pb.VoidInvoiceResponse(invoice=messages.invoice(found))
