"""One-off charges: what a customer owes besides a plan's prices. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from services.invoicer.domain import InvoiceDraft, InvoiceKind, InvoiceLine, LineKind
from services.invoicer.exact import ZERO, format_price, multiply, readable
from services.invoicer.periods import QUARTER_HOUR, Period, quarter_hour_of
from services.invoicer.taxes import TaxRate, tax_lines, taxes_of
from services.kit.money import format_money, round_money


class ChargeTiming(StrEnum):
    """NEXT_INVOICE: on the subscription's next invoice. NOW: on an invoice of its own, at once."""

    NEXT_INVOICE = "NEXT_INVOICE"
    NOW = "NOW"


@dataclass(frozen=True, slots=True)
class OneOffCharge:
    """`quantity` times `unit_price`. `invoice_id` is "" while it waits for an invoice.

    `subscription_id`, on whose next invoice it is, is "" when it was invoiced at once.
    """

    id: str
    customer_id: str
    subscription_id: str
    description: str
    quantity: Decimal
    unit_price: Decimal
    currency: str
    timing: ChargeTiming
    create_time: datetime
    invoice_id: str = ""

    @property
    def amount(self) -> Decimal:
        """Rounded once to the currency's minor units."""
        return round_money(multiply(self.quantity, self.unit_price), self.currency)


def charge_line(charge: OneOffCharge, period: Period) -> InvoiceLine:
    """The line of an invoice of `period`."""
    exact = multiply(charge.quantity, charge.unit_price)
    price = format_price(charge.unit_price, charge.currency)
    steps: tuple[str, ...] = (f"{readable(charge.quantity)} x {price} = {readable(exact)}",)
    if charge.amount != exact:
        rounded = f"{format_money(charge.amount, charge.currency)} {charge.currency}"
        steps += (f"rounded half up: {rounded}",)
    return InvoiceLine(
        kind=LineKind.CHARGE,
        metric="",
        description=charge.description,
        quantity=charge.quantity,
        included_units=ZERO,
        unit_price=charge.unit_price,
        amount=charge.amount,
        period=period,
        steps=steps,
        charge_id=charge.id,
    )


def charge_draft(charge: OneOffCharge, tax_rates: Sequence[TaxRate], now: datetime) -> InvoiceDraft:
    """The invoice of a charge alone; its period is the running quarter of an hour."""
    start = quarter_hour_of(now)
    period = Period(start, start + QUARTER_HOUR)
    line = charge_line(charge, period)
    taxes = taxes_of([line], tax_rates, charge.currency)
    return InvoiceDraft(
        customer_id=charge.customer_id,
        subscription_id="",
        plan_id="",
        plan_version=0,
        currency=charge.currency,
        period=period,
        lines=(line, *tax_lines(taxes, period, charge.currency)),
        kind=InvoiceKind.CHARGE,
        taxes=taxes,
    )
