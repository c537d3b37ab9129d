"""Digits are dropped in one function, once."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from math import floor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.money import minor_digits, round_half_up, round_money

ROOT = Path(__file__).resolve().parents[3]
MONEY = "services/kit/money.py"
# Where quantities and amounts are computed, and computed again by the audit.
BILLING = ("services/invoicer", "services/aggregator", "services/ingest", "cli/auditing")
# What code may take from `decimal`; localcontext for EXACT only.
HARMLESS = {"Decimal", "Inexact", "InvalidOperation", "localcontext"}
# Methods that round, or that take the thread's context when they are given none.
ROUNDING = {
    *("quantize", "normalize", "scaleb", "to_integral_value", "to_integral_exact", "sqrt", "fma"),
    *("remainder_near", "exp", "ln", "log10", "create_decimal", "create_decimal_from_float"),
}
# The only quotients, of fractions.Fraction, which are exact.
FRACTIONS = {"services/invoicer/exact.py"}
# Rates of work and times, which are floats; and the audit, which computes in fractions.
NO_DECIMALS = ("services/ingest/", "cli/auditing/")

DECIMALS = st.decimals(-(10**15), 10**15, places=12)
CURRENCIES = st.sampled_from(["USD", "JPY", "KWD", "CLF"])


def half_up(value: Fraction, places: int) -> Fraction:
    """As it is defined."""
    size = Fraction(floor(abs(value) * 10**places + Fraction(1, 2)), 10**places)
    return size if value >= 0 else -size


@given(DECIMALS, CURRENCIES)
def test_a_decimal_is_rounded_half_up(value: Decimal, currency: str) -> None:
    expected = half_up(Fraction(value), minor_digits(currency))
    assert Fraction(round_money(value, currency)) == expected
    assert round_money(Fraction(value), currency) == round_money(value, currency)


@given(DECIMALS, st.integers(0, 10**9), st.integers(1, 10**9), CURRENCIES)
def test_a_quotient_is_rounded_once(value: Decimal, above: int, below: int, currency: str) -> None:
    quotient = Fraction(value) * above / below
    rounded = round_money(quotient, currency)
    assert Fraction(rounded) == half_up(quotient, minor_digits(currency))
    assert -int(rounded.as_tuple().exponent) == minor_digits(currency)


def test_below_0_places_are_digits_before_the_point() -> None:
    assert round_half_up(Decimal(1005), -1) == round_half_up(Fraction(1005), -1) == 1010


def test_a_process_can_let_every_inexact_operation_raise() -> None:
    """Also in its tasks, and in threads that begin with a context of their own."""
    program = """
import asyncio, threading
from decimal import Decimal, Inexact
from services.kit.money import trap_inexact
raised = []
def divide():
    try:
        Decimal(1) / 3
    except Inexact:
        raised.append(1)
async def main():
    trap_inexact()
    divide()
    await asyncio.create_task(asyncio.to_thread(divide))
    asyncio.get_running_loop().call_soon(divide)
    await asyncio.sleep(0)
    thread = threading.Thread(target=divide)
    thread.start()
    thread.join()
    assert Decimal("1e30") + Decimal("1e-20") > Decimal("1e30")
asyncio.run(main())
print(len(raised))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "4\n"


def test_invoicer_does() -> None:
    tree = ast.parse((ROOT / "services/invoicer/app.py").read_text())
    (main,) = [node for node in tree.body if isinstance(node, ast.AsyncFunctionDef)]
    calls = [each for each in main.body if isinstance(each, ast.Expr)]
    assert "trap_inexact()" in [ast.unparse(each) for each in calls]


def test_no_other_code_rounds_a_decimal_or_has_a_context_of_its_own() -> None:
    files = [path for part in BILLING for path in sorted((ROOT / part).rglob("*.py"))]
    files += sorted((ROOT / "services/kit").glob("*.py"))
    found = []
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        if name != MONEY:
            found += [f"{name}:{each}" for each in roundings(path.read_text(), name)]
    assert found == []


def roundings(source: str, name: str) -> Iterator[str]:
    """ "line: what" of all that may drop a digit."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and any(each.name == "decimal" for each in node.names):
            yield f"{node.lineno}: import decimal"
        elif isinstance(node, ast.ImportFrom) and node.module == "decimal":
            others = {each.name for each in node.names} - HARMLESS
            yield from (f"{node.lineno}: {each}" for each in sorted(others))
        elif isinstance(node, ast.Call):
            function, given = ast.unparse(node.func), [ast.unparse(each) for each in node.args]
            of_context = given[-1:] == ["EXACT"]
            method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            rounds = method in ROUNDING and not function.startswith("EXACT.")
            if (rounds or function == "localcontext") and not of_context:
                yield f"{node.lineno}: {function}"
        elif (
            isinstance(node, ast.BinOp | ast.AugAssign)
            and isinstance(node.op, ast.Div)
            and not (name in FRACTIONS or name.startswith(NO_DECIMALS) or _is_harmless(node))
        ):
            yield f"{node.lineno}: {ast.unparse(node)}"


def _is_harmless(node: ast.BinOp | ast.AugAssign) -> bool:
    """Of a path, or of seconds and their like, by what is written there."""
    return isinstance(node, ast.BinOp) and isinstance(node.right, ast.Constant)


@pytest.mark.parametrize(
    "source",
    [
        "from decimal import ROUND_DOWN",
        "from decimal import Decimal, Context",
        "import decimal",
        "with localcontext(): pass",
        "amount.quantize(unit)",
        "amount.scaleb(-2)",
        "amount / whole",
        "amount /= whole",
    ],
)
def test_what_may_round_is_found(source: str) -> None:
    assert list(roundings(source, "services/invoicer/lines.py"))
