"""A pocket calculator: follows the steps of a charge in fractions, knowing nothing of prices."""

import re
from collections.abc import Sequence
from fractions import Fraction

_NUMBER = re.compile(r"-?[\d,]*\.?\d+")
_TOKEN = re.compile(r"[\d,]*\.?\d+|[-+x/]")
# Words around the figures: the label, units, what was taken off.
_WORDS = re.compile(r"\b(?!x\b)[A-Za-z%]+\b")


def number(text: str) -> Fraction:
    """For example "12,000.5"."""
    return Fraction(text.replace(",", ""))


def follow(steps: Sequence[str]) -> Fraction:
    """The last result; AssertionError where a step's figures do not come to what it says."""
    result = Fraction(0)
    for step in steps:
        calculation, equals, outcome = step.rpartition(" = ")
        result = number(_NUMBER.findall(outcome if equals else step.rpartition(": ")[2])[0])
        if equals and "rounded" not in outcome:
            shown = _WORDS.sub("", calculation.rpartition(": ")[2])
            assert evaluate(shown) == result, step
    return result


def evaluate(text: str) -> Fraction:
    """Products and quotients from the left, then sums."""
    terms, sign, operator = [Fraction(0)], 1, "+"
    for token in _TOKEN.findall(text):
        if token in "+-x/":
            operator = token
        elif operator in "+-":
            sign = -1 if operator == "-" else 1
            terms.append(sign * number(token))
        else:
            value = number(token)
            terms[-1] = terms[-1] * value if operator == "x" else terms[-1] / value
    return sum(terms, Fraction(0))
