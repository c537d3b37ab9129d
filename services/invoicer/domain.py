"""What invoicer is about: customers, plans, subscriptions, invoices. Pure."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from services.invoicer.exact import total
from services.invoicer.periods import BillingAnchor, BillingPeriod, Cycle, Period
from services.invoicer.pricing.model import PricingModel
from services.kit.database import TenantKey
from services.kit.errors import PreconditionError

INVOICE_SERIES = "INV"


class SubscriptionStatus(StrEnum):
    """ACTIVE; SUSPENDED: payments failed, still billed; CANCELLED: ended or about to."""

    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    CANCELLED = "CANCELLED"


class InvoiceStatus(StrEnum):
    """DRAFT: being made, or a preview; all others are final."""

    DRAFT = "DRAFT"
    PENDING = "PENDING"
    PAID = "PAID"
    FAILED = "FAILED"
    VOID = "VOID"


class LineKind(StrEnum):
    """What a line bills."""

    BASE = "BASE"
    USAGE = "USAGE"
    LATE_USAGE = "LATE_USAGE"


@dataclass(frozen=True, slots=True)
class Customer:
    """Whom the organization bills. `currency` and `metadata_json` may be empty."""

    id: str
    name: str
    email: str
    time_zone: str
    currency: str
    metadata_json: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class MetricPrice:
    """A plan's price for one metric."""

    metric: str
    included_units: Decimal
    model: PricingModel


@dataclass(frozen=True, slots=True)
class PlanContent:
    """What a plan costs: one version of it."""

    name: str
    currency: str
    base_price: Decimal
    billing_period: BillingPeriod
    metrics: tuple[MetricPrice, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A version of a plan; versions never change."""

    id: str
    version: int
    content: PlanContent
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Subscription:
    """A customer on a version of a plan.

    `period` is the first one that is not invoiced yet, None when none is left. `revision` counts
    the changes: what was computed from one revision is not written over another.
    """

    tenant: TenantKey
    id: str
    customer_id: str
    plan_id: str
    plan_version: int
    status: SubscriptionStatus
    billing_anchor: BillingAnchor
    billing_period: BillingPeriod
    time_zone: str
    start_time: datetime
    period: Period | None
    cancel_time: datetime | None
    revision: int
    create_time: datetime

    @property
    def cycle(self) -> Cycle:
        """How its time is cut into periods."""
        return Cycle(self.start_time, self.billing_anchor, self.time_zone, self.billing_period)


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One amount of an invoice, in the currency's minor units.

    `included_units` of `quantity` cost nothing; `unit_price` is None where there is not one.
    `period` is what the line bills: an earlier one for late usage.
    """

    kind: LineKind
    metric: str
    description: str
    quantity: Decimal
    included_units: Decimal
    unit_price: Decimal | None
    amount: Decimal
    period: Period
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InvoiceDraft:
    """What an invoice will say."""

    customer_id: str
    subscription_id: str
    plan_id: str
    plan_version: int
    currency: str
    period: Period
    lines: tuple[InvoiceLine, ...]

    @property
    def amount(self) -> Decimal:
        """The exact sum of the lines."""
        return total(line.amount for line in self.lines)


@dataclass(frozen=True, slots=True)
class Invoice:
    """A bill. Once final nothing in it changes but `status` and `failed_payments`."""

    id: str
    number: str
    customer_id: str
    subscription_id: str
    status: InvoiceStatus
    currency: str
    amount: Decimal
    period: Period
    finalize_time: datetime | None
    failed_payments: int
    lines: tuple[InvoiceLine, ...] = ()


def invoice_number(series: str, sequence: int) -> str:
    """For example "INV-000042"."""
    return f"{series}-{sequence:06d}"


_OPEN = (InvoiceStatus.PENDING, InvoiceStatus.FAILED)


def check_payable(invoice: Invoice) -> bool:
    """Whether paying changes the invoice; PreconditionError when it is void."""
    if invoice.status is InvoiceStatus.VOID:
        raise PreconditionError("The invoice is void", reason="invoice_void")
    return invoice.status in _OPEN


def check_failable(invoice: Invoice) -> None:
    """PreconditionError when a payment of the invoice can't fail any more: paid or void."""
    if invoice.status not in _OPEN:
        state = invoice.status.value.lower()
        raise PreconditionError(f"The invoice is {state}", reason=f"invoice_{state}")


def check_voidable(invoice: Invoice) -> bool:
    """Whether voiding changes the invoice; PreconditionError when it is paid."""
    if invoice.status is InvoiceStatus.PAID:
        raise PreconditionError("The invoice is paid", reason="invoice_paid")
    return invoice.status in _OPEN
