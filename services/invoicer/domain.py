"""What invoicer is about: customers, plans, subscriptions, invoices. Pure."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from services.invoicer.discounts import Discount
from services.invoicer.exact import ZERO, total
from services.invoicer.periods import BillingAnchor, BillingPeriod, Cycle, Period
from services.invoicer.pricing.charge import NO_LIMITS, Limits
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


class BasePriceTiming(StrEnum):
    """Whether a period's base price is charged after it or before it."""

    IN_ARREARS = "IN_ARREARS"
    IN_ADVANCE = "IN_ADVANCE"


class InvoiceKind(StrEnum):
    """PERIOD: of a period that is over. OPENING: what is due when a subscription starts.

    CHARGE: a one-off charge that was invoiced at once; it belongs to no subscription.
    """

    PERIOD = "PERIOD"
    OPENING = "OPENING"
    CHARGE = "CHARGE"


class LineKind(StrEnum):
    """What a line bills. CREDIT_CARRIED bills nothing: it moves credit between invoices.

    DISCOUNT, MAXIMUM and MINIMUM change the sum of a period's prices.
    """

    SETUP_FEE = "SETUP_FEE"
    BASE = "BASE"
    USAGE = "USAGE"
    LATE_USAGE = "LATE_USAGE"
    DISCOUNT = "DISCOUNT"
    MAXIMUM = "MAXIMUM"
    MINIMUM = "MINIMUM"
    CHARGE = "CHARGE"
    TAX = "TAX"
    CREDIT_CARRIED = "CREDIT_CARRIED"


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
    limits: Limits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class PlanContent:
    """What a plan costs: one version of it.

    `limits` are what a period of a subscription costs at least and at most, setup fee and one-off
    charges aside.
    """

    name: str
    currency: str
    base_price: Decimal
    billing_period: BillingPeriod
    metrics: tuple[MetricPrice, ...]
    base_price_timing: BasePriceTiming = BasePriceTiming.IN_ARREARS
    setup_fee: Decimal = ZERO
    discounts: tuple[Discount, ...] = ()
    limits: Limits = NO_LIMITS

    @property
    def has_opening(self) -> bool:
        """Whether something is due when a subscription starts."""
        in_advance = self.base_price_timing is BasePriceTiming.IN_ADVANCE
        return self.setup_fee > 0 or (in_advance and self.base_price > 0)


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

    `period` is the first one that is not invoiced yet, None when none is left. `opening`: what is
    due at the start is not invoiced yet either. `revision` counts the changes: what was computed
    from one revision is not written over another.
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
    opening: bool = False

    @property
    def cycle(self) -> Cycle:
        """How its time is cut into periods."""
        return Cycle(self.start_time, self.billing_anchor, self.time_zone, self.billing_period)


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One amount of an invoice, in the currency's minor units.

    `included_units` of `quantity` cost nothing; `unit_price` is None where there is not one.
    `period` is what the line bills: an earlier one for late usage. `charge_id`: the one-off charge.
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
    charge_id: str = ""


@dataclass(frozen=True, slots=True)
class TaxAmount:
    """What one rate comes to on an invoice, rounded once; `taxable` is the sum without taxes.

    `inclusive`: the prices contain it; otherwise it has a line.
    """

    rate_id: str
    name: str
    percent: Decimal
    inclusive: bool
    taxable: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True)
class InvoiceDraft:
    """What an invoice will say. One of a charge has no subscription and no plan: "" and 0."""

    customer_id: str
    subscription_id: str
    plan_id: str
    plan_version: int
    currency: str
    period: Period
    lines: tuple[InvoiceLine, ...]
    kind: InvoiceKind = InvoiceKind.PERIOD
    taxes: tuple[TaxAmount, ...] = ()

    @property
    def amount(self) -> Decimal:
        """The exact sum of the lines."""
        return total(line.amount for line in self.lines)


@dataclass(frozen=True, slots=True)
class Invoice:
    """A bill. Once final nothing in it changes but `status` and `failed_payments`.

    `subscription_id` is "" on the invoice of a one-off charge. `hash`: SHA-256 of its content and
    of the hash of the invoice before, in hexadecimal digits; "" when it was not asked for.
    """

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
    taxes: tuple[TaxAmount, ...] = ()
    hash: str = ""


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
