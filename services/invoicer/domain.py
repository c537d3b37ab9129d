"""What invoicer is about: customers, plans, subscriptions, invoices. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise

from services.invoicer.clocks import Clock, now_of
from services.invoicer.discounts import Discount
from services.invoicer.exact import ZERO, subtract, total
from services.invoicer.periods import (
    BillingAnchor,
    BillingPeriod,
    Cycle,
    Period,
    boundary_near,
    next_period,
    whole_at,
)
from services.invoicer.phases import Phase, PhaseKind, run_at
from services.invoicer.pricing.charge import NO_LIMITS, Limits
from services.invoicer.pricing.model import PricingModel
from services.kit.database import TenantKey
from services.kit.errors import PreconditionError

INVOICE_SERIES = "INV"
# Samoa once moved by a day.
_BOUNDARY_MOVES_MAX = timedelta(days=1)


class SubscriptionStatus(StrEnum):
    """ACTIVE; SUSPENDED: payments failed, still billed; CANCELLED: ended or about to.

    PAUSED is told of an active one while it is paused, and never stored.
    """

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
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
    """PERIOD: of a period that is over. OPENING: due when a subscription starts, or goes on.

    CHARGE: a one-off charge that was invoiced at once; it belongs to no subscription. LATE: what
    came after the last invoice of a subscription that has ended.
    """

    PERIOD = "PERIOD"
    OPENING = "OPENING"
    CHARGE = "CHARGE"
    LATE = "LATE"


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
class UsageLimit:
    """How much a customer may use in a period. HARD: no more; SOFT: it is only told."""

    units: Decimal
    enforcement: str


@dataclass(frozen=True, slots=True)
class MetricPrice:
    """A plan's price for one metric, and how much of it may be used; None: any amount."""

    metric: str
    included_units: Decimal
    model: PricingModel
    limits: Limits = NO_LIMITS
    usage_limit: UsageLimit | None = None


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


@dataclass(frozen=True, slots=True)
class Plan:
    """A version of a plan; versions never change."""

    id: str
    version: int
    content: PlanContent
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Subscription:
    """A customer on a plan; `plan_id` and `plan_version` are what it was made with.

    `phases`, from its start to its end, say what it is on when. `period` is the first one that is
    not invoiced yet, None when none is left. `opening`: what is due at its start is not invoiced
    yet either. `late_check_time`: when it has ended, until when late usage is waited for.
    `exact_period_start`: from which second on time is not invoiced yet; None: as exact_at() tells.
    `revision` counts the changes: what was computed from one revision is not written over another.
    `clock`: the test clock that it is on; None: its time is the real one.
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
    phases: tuple[Phase, ...] = ()
    late_check_time: datetime | None = None
    clock: Clock | None = None
    exact_period_start: datetime | None = None

    def now(self, real: datetime) -> datetime:
        """Its time, when the real time is `real`."""
        return now_of(self.clock, real)

    def phase_at(self, instant: datetime) -> Phase:
        """What it is on then; before its start the first phase, after its end the last one."""
        first = self.phases[0]
        begun = (phase for phase in reversed(self.phases) if phase.start_time <= instant)
        return next(begun, first)

    def priced_at(self, second: datetime) -> Phase:
        """What its time is priced by then; as phase_at() before its start and after its end."""
        begun = (phase for phase in reversed(self.phases) if phase.priced_from <= second)
        return next(begun, self.phases[0])

    @property
    def priced_until(self) -> datetime | None:
        """Until when its time is priced, when it is cancelled; None: it goes on, or never began."""
        return self.phases[-1].priced_until if self.phases else None

    def status_at(self, instant: datetime) -> SubscriptionStatus:
        """PAUSED while an active one is paused."""
        active = self.status is SubscriptionStatus.ACTIVE
        paused = active and self.phase_at(instant).kind is PhaseKind.PAUSED
        return SubscriptionStatus.PAUSED if paused else self.status

    def cycle_at(self, instant: datetime) -> Cycle:
        """How its time is then cut into periods."""
        return self.cycle_of(self.phase_at(instant))

    def cycle_of(self, phase: Phase) -> Cycle:
        """How the time of one of its phases is cut into periods."""
        return Cycle(phase.anchor_time, self.billing_anchor, self.time_zone, phase.billing_period)

    def part_from(self, start: datetime) -> Period | None:
        """What is billed in one piece from `start` on: to the end of the period, or to where
        another plan, a trial's end or a pause cuts it. None when it has ended by then.
        """
        run = run_at(self.phases, start)
        if not run:
            return None
        run_end = run[-1].end_time
        if run[0].kind is PhaseKind.TRIAL:
            assert run_end is not None
            return Period(start, run_end)
        cycle = self.cycle_at(start)
        if self._is_cut(run, start):
            end = whole_at(cycle, start).end
        else:
            end = next_period(cycle, Period(run[0].start_time, start)).end
        return Period(start, end if run_end is None else min(end, run_end))

    def whole_of(self, part: Period) -> Period:
        """The whole period that `part` is cut out of, or itself."""
        run = run_at(self.phases, part.start)
        if not run:
            return part
        whole = whole_at(self.cycle_at(part.start), part.start)
        start = whole.start if self._is_cut(run, part.start) else part.start
        end = max(whole.end, part.end) if self._is_cut(run, part.end) else part.end
        return Period(start, end)

    def exact(self, part: Period) -> Period:
        """What of time is priced with `part`: these abut as parts do."""
        return Period(self.exact_at(part.start), self.exact_at(part.end))

    def exact_at(self, instant: datetime) -> datetime:
        """At which second time is cut where parts meet at `instant`: where a period begins, at that
        very instant, otherwise where another phase begins to be priced.
        """
        if self.period is not None and instant == self.period.start and self.exact_period_start:
            return self.exact_period_start
        earlier = (each for each in reversed(self.phases) if each.start_time < instant)
        before = next((each for each in earlier if not each.is_time_only), None)
        if before is not None and boundary_near(self.cycle_of(before), instant) == instant:
            return instant
        return next(
            (
                phase.priced_from
                for previous, phase in zip((None, *self.phases), self.phases, strict=False)
                if phase.start_time == instant
                and (previous is None or not phase.continues(previous) or phase.repeats(previous))
            ),
            instant,
        )

    def _is_cut(self, run: tuple[Phase, ...], instant: datetime) -> bool:
        """Whether a part that begins or ends at `instant` need not do so where a period does.

        A boundary may have moved by new rules of the zone since the period before it ended; what
        is cut within a quarter of an hour never was one.
        """
        exact = any(
            each.start_time == instant
            and (each.exact_start_time or each.is_time_only or each.repeats(before))
            for before, each in pairwise(self.phases)
        )
        near = boundary_near(self.cycle_at(run[0].start_time), instant)
        ends = (run[0].start_time, run[-1].end_time)
        return exact or instant in ends or abs(near - instant) > _BOUNDARY_MOVES_MAX

    def plan_since(self, instant: datetime, phase: Phase | None = None) -> datetime:
        """Since when it has been on the plan that it is on then, of whatever version; `phase`: on
        that of this one, which has begun by then. A time without usage on another one interrupts
        nothing.
        """
        on = phase or self.phase_at(instant)
        since = instant
        for each in reversed(self.phases):
            if each.start_time > instant or each.priced_from > on.priced_from:
                continue
            if each.plan_id != on.plan_id and each.is_time_only:
                continue
            if each.plan_id != on.plan_id or each.kind is PhaseKind.TRIAL:
                break
            since = each.start_time
        return since


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
    """What an invoice will say. One of a charge has no subscription and no plan: "" and 0.

    `exact`: of one of a period, what time it bills, to the second.
    """

    customer_id: str
    subscription_id: str
    plan_id: str
    plan_version: int
    currency: str
    period: Period
    lines: tuple[InvoiceLine, ...]
    kind: InvoiceKind = InvoiceKind.PERIOD
    taxes: tuple[TaxAmount, ...] = ()
    exact: Period | None = None

    @property
    def amount(self) -> Decimal:
        """The exact sum of the lines."""
        return total(line.amount for line in self.lines)


@dataclass(frozen=True, slots=True)
class Invoice:
    """A bill. Once final nothing in it changes but `status` and `failed_payments`.

    `subscription_id` is "" on the invoice of a one-off charge. `hash`: SHA-256 of its content and
    of the hash of the invoice before, in hexadecimal digits; "" when it was not asked for.
    `credits_applied`: what prepaid credits paid. `credited`: what credit notes took off it before
    it was paid; what they bring back of a paid one is no part of it.
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
    credits_applied: Decimal = ZERO
    credited: Decimal = ZERO

    @property
    def amount_due(self) -> Decimal:
        """What is to be paid of it by other means, or was."""
        if self.status is InvoiceStatus.VOID:
            return ZERO
        return subtract(subtract(self.amount, self.credits_applied), self.credited)


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
