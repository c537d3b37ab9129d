"""In which order credit is used, and how it comes back."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.invoicer.credits import (
    Applications,
    CreditGrant,
    EntryKind,
    GrantKind,
    Wallet,
    debits,
    drawn,
    expiries,
    payable,
    returned,
    voiding,
)
from services.invoicer.exact import total
from services.kit.errors import PreconditionError

NOW = datetime(2026, 1, 15, tzinfo=UTC)
WALLET = ("user_123", "USD")


def grant(
    name: str, left: str, *, priority: int = 50, days: int | None = None, age: int = 1
) -> CreditGrant:
    """A grant of which so much is left, that expires in so many days."""
    expire_time = None if days is None else NOW + timedelta(days=days)
    made = NOW - timedelta(days=age)
    amount = Decimal(left)
    texts = ("", "")
    return CreditGrant(
        name, *WALLET, amount, amount, GrantKind.PAID, priority, *texts, made, expire_time
    )


def used(grants: list[CreditGrant], wanted: str) -> list[tuple[str, str]]:
    return [(each.id, str(taken)) for each, taken in drawn(grants, Decimal(wanted), NOW, {})]


def test_the_lowest_priority_then_the_first_to_expire_then_the_oldest_is_used_first() -> None:
    grants = [
        grant("newest", "1", age=1),
        grant("oldest", "1", age=9),
        grant("expires late", "1", days=30),
        grant("expires soon", "1", days=2),
        grant("urgent", "1", priority=0),
        grant("last", "1", priority=100, days=1, age=99),
    ]
    order = ["urgent", "expires soon", "expires late", "oldest", "newest", "last"]
    assert [name for name, _ in used(grants, "100")] == order
    assert used(grants, "2.5") == [("urgent", "1"), ("expires soon", "1"), ("expires late", "0.5")]


def test_what_is_expired_or_void_pays_nothing() -> None:
    grants = [grant("over", "5", days=0), replace(grant("void", "5"), void_time=NOW)]
    assert used(grants, "5") == []
    assert payable([*grants, grant("good", "3")], Decimal(5), NOW) == 3


def test_invoices_one_after_the_other_use_up_what_there_is() -> None:
    applications = Applications([grant("a", "10", days=1), grant("b", "5")], NOW)
    paid = [
        [(each.grant_id, str(each.amount)) for each in applications.pay(name, WALLET, Decimal(8))]
        for name in ("inv_1", "inv_2", "inv_3")
    ]
    assert paid == [[("a", "-8")], [("a", "-2"), ("b", "-5")], []]
    assert Applications([], NOW).pay("inv_4", ("other", "USD"), Decimal(1)) == []


def test_what_comes_back_goes_to_the_grant_that_was_used_last() -> None:
    paid = [(grant("first", "0", days=9), Decimal(6)), (grant("second", "0"), Decimal(4))]
    movements = returned(paid, "inv_1", Decimal(5), "void", NOW)
    assert [(each.grant_id, each.kind, str(each.amount)) for each in movements] == [
        ("second", EntryKind.RETURN, "4"),
        ("first", EntryKind.RETURN, "1"),
    ]


def test_what_comes_back_to_a_grant_that_is_over_leaves_at_once() -> None:
    over = grant("over", "0", days=0)
    void = replace(grant("void", "0"), void_time=NOW)
    paid = [(over, Decimal(6)), (void, Decimal(4))]
    movements = returned(paid, "inv_1", Decimal(10), "void", NOW)
    assert [(each.grant_id, each.kind.value, str(each.amount)) for each in movements] == [
        ("void", "RETURN", "4"),
        ("void", "VOID", "-4"),
        ("over", "RETURN", "6"),
        ("over", "EXPIRE", "-6"),
    ]


def test_no_more_is_debited_than_there_is() -> None:
    grants = [grant("a", "10"), grant("over", "5", days=0)]
    taken = debits(grants, Decimal(10), "R", NOW)
    assert [(each.grant_id, str(each.amount), each.reason) for each in taken] == [("a", "-10", "R")]
    with pytest.raises(PreconditionError, match=r"only 10.00 is left") as caught:
        debits(grants, Decimal("10.01"), "R", NOW)
    assert caught.value.reason == "insufficient_credits"
    with pytest.raises(PreconditionError, match="only nothing is left"):
        debits([], Decimal(1), "R", NOW)


def test_what_is_left_expires_and_becomes_void() -> None:
    grants = [grant("over", "5", days=0), grant("used up", "0", days=0), grant("good", "1")]
    assert [(each.grant_id, str(each.amount)) for each in expiries(grants, NOW)] == [("over", "-5")]
    assert [each.amount for each in voiding(grants[0], "R")] == [-5]
    assert voiding(grants[1], "R") == []


def test_a_balance_is_low_once_it_has_come_down_to_the_threshold() -> None:
    wallet = Wallet(*WALLET, balance=Decimal(20), low_balance=Decimal(20))
    assert wallet.came_down_to_low(Decimal("20.01"))
    assert not wallet.came_down_to_low(Decimal(20))
    assert not replace(wallet, balance=Decimal("20.01")).came_down_to_low(Decimal(50))
    assert not replace(wallet, low_balance=None).came_down_to_low(Decimal(50))


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 2), st.none() | st.integers(0, 3))),
    st.lists(st.integers(1, 60), max_size=6),
)
def test_invoices_use_no_more_than_there_is_and_all_of_it_when_they_are_large(
    left: list[tuple[int, int, int | None]], dues: list[int]
) -> None:
    grants = [
        grant(str(index), str(amount), priority=priority, days=days)
        for index, (amount, priority, days) in enumerate(left)
    ]
    applications = Applications(grants, NOW)
    paid = [
        total(-each.amount for each in applications.pay(str(number), WALLET, Decimal(due)))
        for number, due in enumerate(dues)
    ]
    usable = sum(amount for amount, _, days in left if days != 0)
    assert all(0 <= amount <= due for amount, due in zip(paid, dues, strict=True))
    assert sum(paid) == min(usable, sum(dues))
