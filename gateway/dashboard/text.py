"""How values are shown to people: numbers, money, times, names of states.

Amounts come as exact decimal strings and are only grouped here, never computed with.
"""

import re
from datetime import datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal, InvalidOperation
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from services.kit import clock
from services.kit.money import is_currency, minor_digits

DASH: Final = "\N{EN DASH}"
MINUS: Final = "\N{MINUS SIGN}"
# Thin spaces and the like are read badly by screen readers; a comma is known everywhere in English.
_GROUP: Final = ","
_SYMBOLS: Final = {
    "USD": "$",
    "EUR": "€",
    "GBP": "£",
    "JPY": "¥",
    "INR": "₹",
    "CHF": "CHF ",
    "CAD": "CA$",
    "AUD": "A$",
    "BRL": "R$",
    "KRW": "₩",
}
_WORDS: Final = {"OF", "PER", "AND", "IN", "A"}
_UNITS: Final = (("K", 3), ("M", 6), ("B", 9), ("T", 12))
_ROW: Final = re.compile(r"(\w+)\[(\d{1,9})\]")
_CAPITAL: Final = re.compile(r"[A-Z]")
_UTC: Final = ZoneInfo("UTC")
_COMPACT_FROM_DIGITS: Final = 5


def number(value: str | int | Decimal | None) -> str:
    """Exact, with thousands separators: "1,234,567.89"; what is no number stays as it is."""
    if value is None or value == "":
        return DASH
    try:
        decimal = Decimal(value)
    except InvalidOperation:
        return str(value)
    text = f"{decimal:{_GROUP}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.replace("-", MINUS, 1)


def compact(value: str | int | Decimal) -> str:
    """Short enough for an axis: "1.2M"; numbers of up to four digits in full."""
    decimal = Decimal(value)
    for unit, exponent in reversed(_UNITS):
        if abs(decimal) >= Decimal(10) ** max(exponent, _COMPACT_FROM_DIGITS - 1):
            scaled = (decimal.scaleb(-exponent)).quantize(Decimal("0.1"))
            return number(scaled) + unit
    return number(decimal)


def money(amount: str | Decimal | None, currency: str) -> str:
    """With the currency's sign and digits: "$1,234.50"; another currency's code in front.

    Digits beyond the minor unit (of unit prices) are kept.
    """
    if amount is None or amount == "":
        return DASH
    decimal = Decimal(amount)
    digits = minor_digits(currency) if is_currency(currency) else 2
    exponent = decimal.as_tuple().exponent
    scale = -exponent if isinstance(exponent, int) else 0
    if scale > digits:
        text = f"{decimal.normalize():f}"
        digits = max(digits, len(text.partition(".")[2]))
    sign = MINUS if decimal < 0 else ""
    symbol = _SYMBOLS.get(currency, f"{currency} ")
    return f"{sign}{symbol}{abs(decimal):{_GROUP}.{digits}f}"


def when(time: datetime | None, zone: ZoneInfo) -> str:
    """Date and time of day in the zone, to the minute."""
    return time.astimezone(zone).strftime("%-d %b %Y, %H:%M") if time else DASH


def to_second(time: datetime | None, zone: ZoneInfo) -> str:
    """Date and time of day in the zone, to the second."""
    return time.astimezone(zone).strftime("%-d %b %Y, %H:%M:%S") if time else DASH


def exactly(time: datetime, zone: ZoneInfo) -> str:
    """With seconds and the zone's name, for those who hover."""
    return time.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + f" {zone.key}"


def day(time: datetime | None, zone: ZoneInfo) -> str:
    """The date in the zone."""
    return time.astimezone(zone).strftime("%-d %b %Y") if time else DASH


def ago(time: datetime) -> str:
    """How long ago, in the largest whole unit: "3 min ago"; the future: "in 3 min"."""
    passed = clock.now() - time
    future = passed < timedelta(0)
    seconds = int(abs(passed).total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if seconds >= size:
            text = f"{seconds // size} {unit}"
            return f"in {text}" if future else f"{text} ago"
    return "now"


def period(start: datetime | None, end: datetime | None, zone: ZoneInfo) -> str:
    """A half-open period by the days that lie in it: "1 Jan" to "31 Jan 2026".

    Of whole days of UTC, as billing has them unless a customer has a zone, these days are told.
    """
    if start is None or end is None:
        return DASH
    if not _at_midnight(start, end, zone) and _at_midnight(start, end, _UTC):
        zone = _UTC
    first = start.astimezone(zone)
    last = (end - timedelta(microseconds=1)).astimezone(zone)
    if first.date() == last.date():
        return f"{first:%-d %b %Y, %H:%M} {DASH} {end.astimezone(zone):%H:%M}"
    form = "%-d %b" if first.year == last.year else "%-d %b %Y"
    return f"{first.strftime(form)} {DASH} {last.strftime('%-d %b %Y')}"


def _at_midnight(start: datetime, end: datetime, zone: ZoneInfo) -> bool:
    return all(each.astimezone(zone).time() == time_of_day.min for each in (start, end))


def words(name: str) -> str:
    """A constant's name as people write it: "PER_UNIT" is "Per unit"."""
    return name.replace("_", " ").capitalize()


def field_words(name: str) -> str:
    """A field's name as people say it: "metrics[0].tiers[1].upTo" is "Metric 1, tier 2, up to"."""
    parts = [_field_part(part) for part in name.split(".")]
    sentence = ", ".join(part for part in parts if part)
    return sentence[:1].upper() + sentence[1:]


def _field_part(part: str) -> str:
    row = _ROW.fullmatch(part)
    words = row[1] if row else part
    if words[:1].islower() or words.startswith("_"):
        words = _CAPITAL.sub(lambda letter: f" {letter[0].lower()}", words)
    if row is None:
        return words.strip("_")
    return f"{words.removesuffix('s')} {int(row[2]) + 1}"


def indented(json_text: str) -> str:
    """A JSON document for people to read, its numbers as they were."""
    return msgspec.json.format(json_text, indent=2)
