"""Taxes of an invoice: one amount for each rate, rounded once. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from services.invoicer.domain import InvoiceLine, LineKind, TaxAmount
from services.invoicer.exact import HUNDRED, ONE, ZERO, add, fraction, percent, subtract, total
from services.invoicer.periods import Period
from services.kit.money import format_decimal, format_money, round_money

# No part of what is taxed: taxes themselves, and credit whose tax was dealt with where it arose.
_UNTAXED = (LineKind.TAX, LineKind.CREDIT_CARRIED)


@dataclass(frozen=True, slots=True)
class TaxRate:
    """A rate that never changes. `inclusive`: prices contain it, otherwise it is added to them."""

    id: str
    name: str
    percent: Decimal
    inclusive: bool
    create_time: datetime


@dataclass(frozen=True, slots=True)
class TaxRates:
    """The rates of a customer, or (`customer_id` "") of customers without rates of their own.

    `inherited`: the customer has none of his own. They are all inclusive, or none is.
    """

    customer_id: str
    rates: tuple[TaxRate, ...] = ()
    inherited: bool = False


def taxes_of(
    lines: Iterable[InvoiceLine], rates: Sequence[TaxRate], currency: str
) -> tuple[TaxAmount, ...]:
    """What each rate comes to on all lines together, rounded once, half up.

    A tax that prices contain is the sum x rate / (100 + all rates); one that is added the sum x
    rate / 100. `taxable` is the sum without taxes.
    """
    whole = total(line.amount for line in lines if line.kind not in _UNTAXED)
    in_hundred = add(HUNDRED, total(rate.percent for rate in rates if rate.inclusive))
    amounts = [
        round_money(
            fraction(whole, rate.percent, in_hundred)
            if rate.inclusive
            else percent(whole, rate.percent),
            currency,
        )
        for rate in rates
    ]
    pairs = list(zip(rates, amounts, strict=True))
    net = subtract(whole, total(amount for rate, amount in pairs if rate.inclusive))
    return tuple(
        TaxAmount(rate.id, rate.name, rate.percent, rate.inclusive, net, amount)
        for rate, amount in pairs
    )


def tax_lines(taxes: Iterable[TaxAmount], period: Period, currency: str) -> Iterator[InvoiceLine]:
    """The lines of those taxes that prices do not contain."""
    for tax in taxes:
        if tax.inclusive:
            continue
        exact = percent(tax.taxable, tax.percent)
        rate = format_decimal(tax.percent)
        figures = f"{format_money(tax.taxable, currency)} x {rate} / 100"
        steps: tuple[str, ...] = (f"{figures} = {format_decimal(exact)}",)
        if exact != tax.amount:
            steps += (f"rounded half up: {format_money(tax.amount, currency)} {currency}",)
        yield InvoiceLine(
            kind=LineKind.TAX,
            metric="",
            description=f"{tax.name} {rate} %",
            quantity=ONE,
            included_units=ZERO,
            unit_price=None,
            amount=tax.amount,
            period=period,
            steps=steps,
        )
