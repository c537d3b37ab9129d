"""What discounts and one-off charges may contain; all problems are named at once. Pure."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from services.invoicer.charges import ChargeTiming
from services.invoicer.discounts import PERIODS_MAX, Discount
from services.invoicer.exact import HUNDRED
from services.kit.errors import FieldChecks
from services.kit.events import IDEMPOTENCY_KEY_CHARS_MAX
from services.kit.money import is_currency

DISCOUNTS_MAX = 20
NAME_CHARS_MAX = 200
DESCRIPTION_CHARS_MAX = 500
TAX_NAME_CHARS_MAX = 100
# An invoice has a line for each metric of a plan, at most, and earlier periods' of each.
CREDIT_LINES_MAX = 1_000
# Of one customer.
TAX_RATES_MAX = 5
MONEY_DIGITS_MAX = 20
PERCENT_SCALE_MAX = 6
# U+0000 can't be stored as text, half a surrogate pair can't be sent on.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class DiscountInput:
    """A discount as asked for; `percent` or `amount` is "", and no `periods` (0) are for ever."""

    name: str = ""
    percent: str = ""
    amount: str = ""
    periods: int = 0


@dataclass(frozen=True, slots=True)
class ChargeInput:
    """A one-off charge as asked for; `subscription_id`, `currency` and the key may be ""."""

    customer_id: str
    description: str
    unit_price: str
    quantity: str = ""
    currency: str = ""
    subscription_id: str = ""
    timing: str = "NEXT_INVOICE"
    idempotency_key: str = ""

    @property
    def digest(self) -> bytes:
        """Of all but the key: the same content has the same one."""
        return _digest(asdict(self))


@dataclass(frozen=True, slots=True)
class CreditNoteInput:
    """A credit note as asked for; no `lines`: all that is left of the invoice.

    `lines`: positions of lines of the invoice, from 1, and what to credit of them.
    `refund_to_credits`: what is credited of a paid invoice becomes credit of the customer.
    """

    invoice_id: str
    reason: str
    lines: Sequence[tuple[int, str]] = ()
    refund_reference: str = ""
    idempotency_key: str = ""
    refund_to_credits: bool = False

    @property
    def digest(self) -> bytes:
        """Of all but the key: the same content has the same one."""
        content = asdict(self)
        # As it was when there was no such field.
        if not self.refund_to_credits:
            del content["refund_to_credits"]
        return _digest(content)


@dataclass(frozen=True, slots=True)
class TaxRateInput:
    """A tax rate as asked for."""

    name: str
    percent: str
    inclusive: bool = False


@dataclass(frozen=True, slots=True)
class ChargeContent:
    """What a charge says."""

    description: str
    quantity: Decimal
    unit_price: Decimal
    timing: ChargeTiming


def check_discounts(checks: FieldChecks, given: Sequence[DiscountInput]) -> tuple[Discount, ...]:
    """A plan's discounts, noting what is wrong."""
    message = f"must be at most {DISCOUNTS_MAX}"
    if not checks.require(len(given) <= DISCOUNTS_MAX, "discounts", message):
        return ()
    return tuple(
        check_discount(checks, each, f"discounts[{index}].") for index, each in enumerate(given)
    )


def check_discount(checks: FieldChecks, given: DiscountInput, where: str = "") -> Discount:
    """A discount, noting what is wrong; `where` comes before the fields' names."""
    check_text(checks, given.name, f"{where}name", 0, NAME_CHARS_MAX)
    one = bool(given.percent) != bool(given.amount)
    checks.require(one, f"{where}percent", "give either percent or amount")
    percent = amount = None
    if given.percent:
        percent = checks.decimal(given.percent, f"{where}percent", scale_max=PERCENT_SCALE_MAX)
        right = 0 < percent <= HUNDRED
        checks.require(right, f"{where}percent", "must be more than 0 and at most 100")
    if given.amount:
        amount = checks.decimal(given.amount, f"{where}amount", digits_max=MONEY_DIGITS_MAX)
        checks.require(amount > 0, f"{where}amount", "must be more than 0")
    right = 0 <= given.periods <= PERIODS_MAX
    checks.require(right, f"{where}periods", f"must be from 1 to {PERIODS_MAX}, or none for ever")
    return Discount(given.name, percent, amount, given.periods or None)


def check_tax_rate(checks: FieldChecks, given: TaxRateInput) -> Decimal:
    """The rate in percent, noting what is wrong."""
    check_text(checks, given.name, "name", 1, TAX_NAME_CHARS_MAX)
    rate = checks.decimal(given.percent, "percent", scale_max=PERCENT_SCALE_MAX)
    checks.require(rate <= HUNDRED, "percent", "must be at most 100")
    return rate


def check_credit_note(checks: FieldChecks, given: CreditNoteInput) -> dict[int, Decimal] | None:
    """What to credit, by the lines' positions; None: all that is left."""
    check_text(checks, given.reason, "reason", 1, DESCRIPTION_CHARS_MAX)
    check_text(checks, given.refund_reference, "refundReference", 0, NAME_CHARS_MAX)
    twice = given.refund_to_credits and given.refund_reference
    message = "is for what was paid back otherwise: refundToCredits gives it one"
    checks.require(not twice, "refundReference", message)
    _check_key(checks, given.idempotency_key)
    few = len(given.lines) <= CREDIT_LINES_MAX
    if not given.lines or not checks.require(few, "lines", f"must be at most {CREDIT_LINES_MAX}"):
        return None
    wanted: dict[int, Decimal] = {}
    for index, (position, amount) in enumerate(given.lines):
        once = position not in wanted
        checks.require(once, f"lines[{index}].line", "must not come twice")
        wanted[position] = checks.decimal(amount, f"lines[{index}].amount")
    return wanted


def _digest(content: dict[str, Any]) -> bytes:
    sent = {name: value for name, value in content.items() if name != "idempotency_key"}
    return hashlib.sha256(json.dumps(sent, sort_keys=True).encode()).digest()


def _check_key(checks: FieldChecks, key: str) -> None:
    right = len(key) <= IDEMPOTENCY_KEY_CHARS_MAX and key.isascii() and key.isprintable()
    message = f"must be 1-{IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters"
    checks.require(not key or right, "Idempotency-Key", message)


def check_charge(checks: FieldChecks, given: ChargeInput) -> ChargeContent:
    """What a charge says, noting what is wrong."""
    check_text(checks, given.description, "description", 1, DESCRIPTION_CHARS_MAX)
    quantity = checks.decimal(given.quantity or "1", "quantity", digits_max=MONEY_DIGITS_MAX)
    checks.require(quantity > 0, "quantity", "must be more than 0")
    unit_price = checks.decimal(given.unit_price, "unitPrice", digits_max=MONEY_DIGITS_MAX)
    known = given.timing in ChargeTiming.__members__
    checks.require(known, "timing", f"must be one of {', '.join(ChargeTiming)}")
    alone = given.timing == ChargeTiming.NOW and given.subscription_id
    message = "is for a charge on its next invoice, not for one that is invoiced at once"
    checks.require(not alone, "subscriptionId", message)
    if given.currency:
        message = 'must be an ISO 4217 code such as "USD"'
        checks.require(is_currency(given.currency), "currency", message)
    _check_key(checks, given.idempotency_key)
    timing = ChargeTiming(given.timing) if known else ChargeTiming.NEXT_INVOICE
    return ChargeContent(given.description, quantity, unit_price, timing)


def check_text(checks: FieldChecks, text: str, name: str, chars_min: int, chars_max: int) -> None:
    """Note a problem unless a text has so many characters, and no control characters."""
    right = chars_min <= len(text) <= chars_max and not CONTROL.search(text)
    message = f"must have {chars_min}-{chars_max} characters and no control characters"
    checks.require(right, name, message)
