"""Reads the parameters of a pricing model, naming each that is wrong."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from services.kit.errors import FieldChecks

# With a quantity's 38 digits this makes 58: within the 60 that are exact.
PRICE_DIGITS_MAX = 20
PRICE_SCALE_MAX = 12


class Parameters:
    """Some parameters, called for example "metrics[0].tiers[1]"; problems go to `checks`."""

    def __init__(
        self, given: Mapping[str, Any], field: str, checks: FieldChecks, known: Sequence[str]
    ) -> None:
        self._given = {name: value for name, value in given.items() if value not in ("", None, [])}
        self._field = field
        self._checks = checks
        for name in self._given:
            self.require(name in known, name, f"does not belong here; allowed: {', '.join(known)}")

    def require(self, ok: bool, name: str, message: str) -> bool:
        """Note a problem of the parameter `name` unless `ok`; returns `ok`."""
        return self._checks.require(ok, f"{self._field}.{name}", message)

    def required(self, name: str, **limits: Any) -> Decimal:
        """A decimal >= 0; 0 after a problem."""
        self.require(name in self._given, name, "is required")
        return self.optional(name, **limits) or Decimal(0)

    def optional(self, name: str, **limits: Any) -> Decimal | None:
        """A decimal >= 0, or None when it was not given."""
        if name not in self._given:
            return None
        text = self._given[name]
        limits = {"digits_max": PRICE_DIGITS_MAX, "scale_max": PRICE_SCALE_MAX, **limits}
        return self._checks.decimal(text, f"{self._field}.{name}", **limits)

    def entries(self, name: str, known: Sequence[str], entries_max: int) -> "list[Parameters]":
        """The entries of a list, 1 to `entries_max`; none after a problem."""
        given = self._given.get(name, [])
        right = 1 <= len(given) <= entries_max
        if not self.require(right, name, f"must have 1 to {entries_max} entries"):
            return []
        return [
            Parameters(entry, f"{self._field}.{name}[{index}]", self._checks, known)
            for index, entry in enumerate(given)
        ]

    def raw(self, name: str) -> Any:
        """The value as it was given; None when it was not."""
        return self._given.get(name)
