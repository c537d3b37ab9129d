"""What requests about prepaid credits may contain; all problems are named at once. Pure."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from services.invoicer.checks import check_metadata
from services.invoicer.credits import PRIORITY_DEFAULT, PRIORITY_MAX, GrantKind
from services.invoicer.domain import Customer
from services.invoicer.term_checks import DESCRIPTION_CHARS_MAX, MONEY_DIGITS_MAX, check_text
from services.kit.errors import FieldChecks
from services.kit.money import is_currency, minor_digits, round_money


@dataclass(frozen=True, slots=True)
class GrantInput:
    """Credit to grant, as asked for; what may be left out is "" or None."""

    customer_id: str
    amount: str
    currency: str = ""
    kind: str = "PAID"
    priority: int = PRIORITY_DEFAULT
    description: str = ""
    metadata_json: str = ""
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class DebitInput:
    """Credit to take off, as asked for; `currency` may be ""."""

    customer_id: str
    amount: str
    reason: str
    currency: str = ""


def check_grant(checks: FieldChecks, given: GrantInput, now: datetime) -> GrantKind:
    """All but currency and amount, noting what is wrong."""
    known = given.kind in GrantKind.__members__
    checks.require(known, "kind", f"must be one of {', '.join(GrantKind)}")
    right = 0 <= given.priority <= PRIORITY_MAX
    checks.require(right, "priority", f"must be from 0 to {PRIORITY_MAX}")
    check_text(checks, given.description, "description", 0, DESCRIPTION_CHARS_MAX)
    check_metadata(checks, given.metadata_json)
    later = given.expire_time is None or given.expire_time > now
    checks.require(later, "expiresAt", "must be in the future")
    return GrantKind(given.kind) if known else GrantKind.PAID


def check_reason(checks: FieldChecks, reason: str, chars_min: int) -> None:
    """Why somebody takes credit off."""
    check_text(checks, reason, "reason", chars_min, DESCRIPTION_CHARS_MAX)


def check_credit_currency(
    checks: FieldChecks, given: str, customer: Customer, alone: str = ""
) -> str:
    """The currency: that given, the customer's, or ("" for none) that of his only wallet; ""
    when something is wrong with it.
    """
    currency = given or customer.currency or alone
    required = "is required: the customer has none"
    if not checks.require(bool(currency), "currency", required):
        return ""
    message = 'must be an ISO 4217 code such as "USD"'
    if not checks.require(is_currency(currency), "currency", message):
        return ""
    same = not customer.currency or currency == customer.currency
    message = f"the customer pays in {customer.currency}"
    return currency if checks.require(same, "currency", message) else ""


def check_credit(
    checks: FieldChecks, text: str, field: str, currency: str, *, least: bool = True
) -> Decimal:
    """An amount in minor units of `currency` ("": unknown), above 0 unless not `least`."""
    noted = len(checks.problems)
    amount = checks.decimal(text, field, digits_max=MONEY_DIGITS_MAX)
    if len(checks.problems) > noted:  # one problem of a field is enough
        return amount
    checks.require(amount > 0 or not least, field, "must be more than 0")
    if currency:
        digits = minor_digits(currency)
        fits = amount == round_money(amount, currency)
        checks.require(fits, field, f"must have at most {digits} digits after the point")
    return amount
