"""Prepaid credits: grants that pay invoices, and the ledger of what happens to them. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum

from services.invoicer.exact import ZERO, subtract, total
from services.kit.errors import PreconditionError
from services.kit.money import format_money

PRIORITY_DEFAULT = 50
PRIORITY_MAX = 100
# Of one wallet, with something left of them: what an invoice may have to be paid from.
OPEN_GRANTS_MAX = 500
_NEVER = datetime.max.replace(tzinfo=UTC)


class GrantKind(StrEnum):
    """Whether the customer paid for the credit. Both pay alike: it is for the books."""

    PAID = "PAID"
    PROMOTIONAL = "PROMOTIONAL"


class EntryKind(StrEnum):
    """GRANT and RETURN (of an invoice that needs it no longer) bring credit, the others take it.

    APPLY pays an invoice; DEBIT takes credit off by hand.
    """

    GRANT = "GRANT"
    APPLY = "APPLY"
    RETURN = "RETURN"
    EXPIRE = "EXPIRE"
    VOID = "VOID"
    DEBIT = "DEBIT"


@dataclass(frozen=True, slots=True)
class Wallet:
    """A customer's credit in one currency; `sequence` is that of the newest entry.

    `low_balance`: whoever listens is told when the balance comes down to it; None: nobody is.
    """

    customer_id: str
    currency: str
    balance: Decimal
    sequence: int = 0
    low_balance: Decimal | None = None

    def came_down_to_low(self, before: Decimal) -> bool:
        """Whether it has come down to the threshold from a balance of `before`."""
        return self.low_balance is not None and self.balance <= self.low_balance < before


@dataclass(frozen=True, slots=True)
class CreditGrant:
    """Credit of a customer; nothing of it changes but `balance`, what is left of `amount`.

    Of two grants the one with the lower `priority` is used first. `credit_note_id`: the credit note
    whose refund it is; "" for none.
    """

    id: str
    customer_id: str
    currency: str
    amount: Decimal
    balance: Decimal
    kind: GrantKind
    priority: int
    description: str
    metadata_json: str
    create_time: datetime
    expire_time: datetime | None = None
    void_time: datetime | None = None
    credit_note_id: str = ""

    @property
    def order(self) -> tuple[int, datetime, datetime, str]:
        """Priority, then what expires first, then the oldest."""
        return (self.priority, self.expire_time or _NEVER, self.create_time, self.id)

    def is_over(self, now: datetime) -> bool:
        """Whether it has expired by `now`."""
        return self.expire_time is not None and self.expire_time <= now


@dataclass(frozen=True, slots=True)
class CreditEntry:
    """A line of a wallet's ledger. `balance` is the wallet's after it; `amount` is signed."""

    sequence: int
    grant_id: str
    currency: str
    kind: EntryKind
    amount: Decimal
    balance: Decimal
    invoice_id: str
    reason: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Movement:
    """An entry that is to be written; the database gives it its sequence and balance."""

    customer_id: str
    currency: str
    grant_id: str
    kind: EntryKind
    amount: Decimal
    invoice_id: str = ""
    reason: str = ""


def drawn(
    grants: Iterable[CreditGrant], wanted: Decimal, now: datetime, left: Mapping[str, Decimal]
) -> list[tuple[CreditGrant, Decimal]]:
    """From which grants up to `wanted` is taken, and how much, in the order of their use.

    `left`: of grants that were drawn on since they were read, what is left of them.
    """
    found = []
    for each in sorted(grants, key=lambda grant: grant.order):
        balance = left.get(each.id, each.balance)
        taken = min(balance, wanted)
        if taken > 0 and not each.is_over(now) and each.void_time is None:
            found.append((each, taken))
            wanted = subtract(wanted, taken)
    return found


def payable(grants: Sequence[CreditGrant], due: Decimal, now: datetime) -> Decimal:
    """What of an invoice the grants would pay."""
    return total(amount for _, amount in drawn(grants, due, now, {}))


def debits(
    grants: Sequence[CreditGrant], amount: Decimal, reason: str, now: datetime
) -> list[Movement]:
    """Take `amount` off by hand; PreconditionError when there is less."""
    found = drawn(grants, amount, now, {})
    there = total(taken for _, taken in found)
    if there < amount:
        currency = grants[0].currency if grants else ""
        words = format_money(there, currency) if currency else "nothing"
        raise PreconditionError(
            f"Of the credit only {words} is left", reason="insufficient_credits"
        )
    return [_taking(EntryKind.DEBIT, grant, taken, reason=reason) for grant, taken in found]


def expiries(grants: Iterable[CreditGrant], now: datetime) -> list[Movement]:
    """What is left of grants that have expired."""
    over = (each for each in grants if each.is_over(now) and each.balance > 0)
    return [_taking(EntryKind.EXPIRE, each, each.balance) for each in over]


def voiding(grant: CreditGrant, reason: str) -> list[Movement]:
    """What is left of a grant that is declared void."""
    if grant.balance == 0:
        return []
    return [_taking(EntryKind.VOID, grant, grant.balance, reason=reason)]


class Applications:
    """Pays invoices one after the other from grants that were read, and locked, before."""

    def __init__(self, grants: Sequence[CreditGrant], now: datetime) -> None:
        self._grants: dict[tuple[str, str], list[CreditGrant]] = {}
        for each in grants:
            self._grants.setdefault((each.customer_id, each.currency), []).append(each)
        self._left: dict[str, Decimal] = {}
        self._now = now

    def pay(self, invoice_id: str, wallet: tuple[str, str], due: Decimal) -> list[Movement]:
        """Pay as much as there is of what is `due`; `wallet`: the customer and the currency."""
        found = drawn(self._grants.get(wallet, ()), due, self._now, self._left)
        for grant, amount in found:
            before = self._left.get(grant.id, grant.balance)
            self._left[grant.id] = subtract(before, amount)
        return [
            _taking(EntryKind.APPLY, grant, amount, invoice_id=invoice_id)
            for grant, amount in found
        ]


def returned(
    grants: Sequence[tuple[CreditGrant, Decimal]],
    invoice_id: str,
    amount: Decimal,
    reason: str,
    now: datetime,
) -> list[Movement]:
    """Give `amount` of an invoice back to the grants that paid it, what was used last first.

    `grants`: what each has paid of it, less what was given back. To a grant that has expired or is
    void since then it comes back only to leave at once: it would not have been there any longer.
    """
    movements = []
    for grant, paid in sorted(grants, key=lambda pair: pair[0].order, reverse=True):
        back = min(paid, amount)
        if back <= 0:
            continue
        amount = subtract(amount, back)
        wallet = (grant.customer_id, grant.currency, grant.id)
        movements.append(Movement(*wallet, EntryKind.RETURN, back, invoice_id, reason))
        if grant.void_time is not None:
            movements.append(_taking(EntryKind.VOID, grant, back, reason=reason))
        elif grant.is_over(now):
            movements.append(_taking(EntryKind.EXPIRE, grant, back, reason=reason))
    assert amount <= 0, "no more comes back than was paid"
    return movements


def _taking(
    kind: EntryKind, grant: CreditGrant, amount: Decimal, *, invoice_id: str = "", reason: str = ""
) -> Movement:
    signed = subtract(ZERO, amount)
    return Movement(grant.customer_id, grant.currency, grant.id, kind, signed, invoice_id, reason)
