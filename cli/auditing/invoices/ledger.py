"""Prepaid credits: each balance is what its entries come to, and no invoice took too much. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from cli.auditing.invoices.chain import Problem
from cli.auditing.invoices.money import fraction
from cli.auditing.invoices.sums import compare, plain

Row = Mapping[str, Any]
_ZERO = Fraction(0)
_TAKES = ("APPLY", "EXPIRE", "VOID", "DEBIT")


@dataclass(slots=True)
class Ledger:
    """Follows the entries of wallet after wallet; then tells what invoices took."""

    wallets: dict[tuple[str, str], Row] = field(default_factory=dict)
    taken: dict[str, Fraction] = field(default_factory=dict)
    _sequences: dict[tuple[str, str], int] = field(default_factory=dict)
    _balances: dict[tuple[str, str], Fraction] = field(default_factory=dict)
    _left: dict[str, Fraction] = field(default_factory=dict)

    def follow(self, entry: Row) -> Iterator[Problem]:
        """The next entry of a wallet."""
        key, sequence = (entry["customer_id"], entry["currency"]), int(entry["sequence"])
        expected = self._sequences.get(key, 0) + 1
        if sequence != expected:
            yield Problem(_name(key), 0, "entry", str(sequence), str(expected))
        self._sequences[key] = sequence
        amount = fraction(entry["amount"])
        if (amount < 0) != (entry["kind"] in _TAKES):
            yield Problem(_name(key), 0, f"sign of entry {sequence}", plain(amount), entry["kind"])
        balance = self._balances.get(key, _ZERO) + amount
        self._balances[key] = balance
        what = f"balance after entry {sequence}"
        yield from _compare(key, what, fraction(entry["balance"]), balance)
        if balance < 0:
            yield Problem(_name(key), 0, what, plain(balance), "0 at least")
        self._left[entry["grant_id"]] = self._left.get(entry["grant_id"], _ZERO) + amount
        if entry["invoice_id"]:
            before = self.taken.get(entry["invoice_id"], _ZERO)
            self.taken[entry["invoice_id"]] = before - amount

    def finish(self) -> Iterator[Problem]:
        """What wallets and grants say is what their entries came to."""
        for key, wallet in self.wallets.items():
            balance = self._balances.pop(key, _ZERO)
            yield from _compare(key, "balance", fraction(wallet["balance"]), balance)
            newest = Fraction(self._sequences.get(key, 0))
            yield from _compare(key, "entries", fraction(wallet["newest_sequence"]), newest)
            for grant in wallet["grants"]:
                left = self._left.pop(grant["id"], _ZERO)
                yield from _compare(key, f"left of {grant['id']}", fraction(grant["balance"]), left)
        for key in self._balances:
            yield Problem(_name(key), 0, "wallet", "nothing", "a wallet")

    def check(self, invoice: Row) -> Iterator[Problem]:
        """An invoice took at most what it amounts to, and nothing when it is void."""
        taken = self.taken.get(invoice["id"], _ZERO)
        most = _ZERO if invoice["status"] == "VOID" else fraction(invoice["amount"])
        expected = min(max(taken, _ZERO), most)
        yield from compare(invoice, 0, "credits applied", taken, expected)


def _compare(
    key: tuple[str, str], what: str, stored: Fraction, expected: Fraction
) -> Iterator[Problem]:
    yield from compare({"number": _name(key)}, 0, what, stored, expected)


def _name(key: tuple[str, str]) -> str:
    return f"credits of {key[0]} in {key[1]}"
