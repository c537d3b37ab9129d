"""What is hashed of a document, and the hash: docs/adr/0029-hash-chain.md, format 1. Pure."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

FIRST_PREVIOUS = bytes(32)

_INVOICE = [
    "amount",
    "create_time",
    "currency",
    "customer_id",
    "finalize_time",
    "id",
    "kind",
    "mode",
    "number",
    "organization_id",
    "period_end",
    "period_start",
    "plan_id",
    "plan_version",
    "subscription_id",
]
_EXACT = ["exact_period_end", "exact_period_start"]
_LINE = [
    "amount",
    "charge_id",
    "description",
    "included_units",
    "kind",
    "metric",
    "period_end",
    "period_start",
    "position",
    "quantity",
    "steps",
    "unit_price",
]
_CHANGE = [name for name in _LINE if name != "charge_id"]
_TAX = ["amount", "inclusive", "name", "percent", "position", "tax_rate_id", "taxable"]
_CREDIT_NOTE = [
    "amount",
    "create_time",
    "currency",
    "customer_id",
    "id",
    "invoice_id",
    "mode",
    "number",
    "organization_id",
    "reason",
    "refund_reference",
]
_CREDIT_NOTE_LINE = ["amount", "description", "position"]
_DECIMALS = {"amount", "included_units", "percent", "quantity", "taxable", "unit_price"}
_INTEGERS = {"plan_version", "position"}
_TIMES = {"create_time", "finalize_time", "period_end", "period_start", *_EXACT}


def content_hash(document: Mapping[str, Any]) -> bytes:
    """SHA-256 of an invoice or credit note, whose numbers are texts with all digits."""
    if document["type"] == "invoice":
        # Of those of periods, since it is kept.
        exact = [name for name in _EXACT if document.get(name) is not None]
        content = _values(document, [*_INVOICE, *exact])
        content["lines"] = [_values(line, _LINE) for line in document["lines"]]
        content["taxes"] = [_values(tax, _TAX) for tax in document["taxes"]]
    else:
        content = _values(document, _CREDIT_NOTE)
        content["lines"] = [_values(line, _CREDIT_NOTE_LINE) for line in document["lines"]]
        if document["changes"]:
            content["changes"] = [_values(each, _CHANGE) for each in document["changes"]]
    content |= {"format": 1, "type": document["type"]}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).digest()


def chained_hash(previous: bytes, content: bytes) -> bytes:
    """The hash of a document over that of the one before."""
    return hashlib.sha256(previous + content).digest()


def _values(row: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    return {name: _value(name, row[name]) for name in names}


def _value(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _DECIMALS:
        whole, point, digits = str(value).partition(".")
        digits = digits.rstrip("0")
        return whole + (point + digits if digits else "")
    if name in _INTEGERS:
        return int(value)
    if name in _TIMES:
        return f"{datetime.fromisoformat(value).astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    return value
