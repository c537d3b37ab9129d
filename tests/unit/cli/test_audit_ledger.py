"""What an audit of invoices sees of prepaid credits."""

from typing import Any

import pytest

from cli.auditing.invoices.ledger import Ledger

WALLET = {"customer_id": "ann", "currency": "USD", "balance": "4", "newest_sequence": "3"}
GRANTS = [{"id": "crg_1", "balance": "4"}]
ENTRIES = [
    ("1", "GRANT", "10", "10", None),
    ("2", "APPLY", "-8", "2", "inv_1"),
    ("3", "RETURN", "2", "4", "inv_1"),
]
NAMES = ("sequence", "kind", "amount", "balance", "invoice_id")
INVOICE = {"id": "inv_1", "number": "INV-000001", "amount": "7", "status": "PENDING"}


def problems(
    invoice: dict[str, Any] | None = None, entry: int = 0, wallet: Any = None, **changes: str
) -> list[str]:
    """What is found when some of it is another."""
    ledger = Ledger()
    there = {**WALLET, "grants": GRANTS, **(wallet or {})}
    ledger.wallets["ann", "USD"] = there
    found: list[Any] = []
    for number, values in enumerate(ENTRIES, start=1):
        row = {"customer_id": "ann", "currency": "USD", "grant_id": "crg_1"}
        row |= dict(zip(NAMES, values, strict=True))  # type: ignore[arg-type]
        found += ledger.follow(row | (changes if number == entry else {}))
    found += [*ledger.finish(), *ledger.check({**INVOICE, **(invoice or {})})]
    return [each.what for each in found]


def test_a_ledger_that_adds_up_has_no_problems() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"entry": 2, "sequence": "4"}, ["entry", "entry"]),
        ({"entry": 2, "kind": "RETURN"}, ["sign of entry 2"]),
        ({"entry": 3, "balance": "5"}, ["balance after entry 3"]),
        ({"wallet": {"balance": "5"}}, ["balance"]),
        ({"wallet": {"newest_sequence": "4"}}, ["entries"]),
        ({"wallet": {"grants": [{"id": "crg_1", "balance": "3"}]}}, ["left of crg_1"]),
        ({"invoice": {"amount": "5"}}, ["credits applied"]),
        ({"invoice": {"status": "VOID"}}, ["credits applied"]),
    ],
)
def test_what_does_not_add_up_is_found(change: dict[str, Any], found: list[str]) -> None:
    assert problems(**change) == found


def test_more_taken_than_there_was_is_found() -> None:
    assert "balance after entry 2" in problems(entry=2, amount="-11", balance="-1")
