"""What a request may contain; all problems are named at once, as in the HTTP contract. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from services.invoicer.domain import MetricPrice, PlanContent
from services.invoicer.periods import (
    BillingAnchor,
    BillingPeriod,
    is_on_quarter_hour,
    is_time_zone,
    quarter_hour_of,
)
from services.invoicer.pricing.registry import PRICING_MODELS
from services.kit.errors import FieldChecks, FieldProblem, InvalidArgumentError
from services.kit.money import is_currency

NAME_CHARS_MAX = 200
EMAIL_CHARS_MAX = 254
CUSTOMER_ID_CHARS_MAX = 255
METADATA_BYTES_MAX = 8 * 1024
PLAN_METRICS_MAX = 100
MONEY_DIGITS_MAX = 20
START_DAYS_AGO_MAX = 400
START_DAYS_AHEAD_MAX = 400

CUSTOMER_FIELDS = ("name", "email", "time_zone", "currency", "metadata_json")
TIME_ZONE_DEFAULT = "UTC"

# U+0000 can't be stored as text, half a surrogate pair can't be sent on.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_METRIC = re.compile(r"[A-Za-z0-9_.:\-]{1,128}", re.ASCII)
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


@dataclass(frozen=True, slots=True)
class CustomerInput:
    """A customer as asked for; `update_fields` says what to set, of CUSTOMER_FIELDS; none: all."""

    id: str
    name: str = ""
    email: str = ""
    time_zone: str = ""
    currency: str = ""
    metadata_json: str = ""
    update_fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MetricPriceInput:
    """A metric's price as asked for; `parameters` have the HTTP contract's names."""

    metric: str
    model: str
    included_units: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlanInput:
    """A plan as asked for."""

    name: str
    currency: str
    base_price: str
    billing_period: str
    metrics: Sequence[MetricPriceInput]


def check_customer_id(checks: FieldChecks, customer_id: str, name: str) -> None:
    """Note a problem unless `customer_id` can be a customer's id."""
    right = 1 <= len(customer_id) <= CUSTOMER_ID_CHARS_MAX and not _CONTROL.search(customer_id)
    message = f"must be 1-{CUSTOMER_ID_CHARS_MAX} characters without control characters"
    checks.require(right, name, message)


def is_customer_id(customer_id: str) -> bool:
    """Whether `customer_id` can be a customer's id."""
    checks = FieldChecks()
    check_customer_id(checks, customer_id, "id")
    return not checks.problems


def check_customer(given: CustomerInput) -> dict[str, str]:
    """The fields to set, by name; InvalidArgumentError names all that is wrong.

    An empty time zone becomes UTC.
    """
    checks = FieldChecks()
    check_customer_id(checks, given.id, "id")
    unknown = sorted(set(given.update_fields) - set(CUSTOMER_FIELDS))
    allowed = f"must be among {', '.join(CUSTOMER_FIELDS)}"
    checks.require(not unknown, "updateFields", allowed)
    names = [name for name in CUSTOMER_FIELDS if name in given.update_fields] or CUSTOMER_FIELDS
    values: dict[str, str] = {name: getattr(given, name) for name in names}
    for name, value in values.items():
        _CUSTOMER_CHECKS[name](checks, value)
    checks.done()
    if values.get("time_zone") == "":
        values["time_zone"] = TIME_ZONE_DEFAULT
    return values


def _check_name(checks: FieldChecks, name: str) -> None:
    right = len(name) <= NAME_CHARS_MAX and not _CONTROL.search(name)
    message = f"must have at most {NAME_CHARS_MAX} characters and no control characters"
    checks.require(right, "name", message)


def _check_email(checks: FieldChecks, email: str) -> None:
    right = len(email) <= EMAIL_CHARS_MAX and _EMAIL.fullmatch(email) is not None
    checks.require(not email or (right and not _CONTROL.search(email)), "email", "is no address")


def _check_time_zone(checks: FieldChecks, name: str) -> None:
    known = not name or is_time_zone(name)
    checks.require(known, "timezone", 'must be an IANA time zone such as "Europe/Berlin"')


def _check_customer_currency(checks: FieldChecks, code: str) -> None:
    if code:
        _check_currency(checks, code)


def _check_currency(checks: FieldChecks, code: str) -> None:
    checks.require(is_currency(code), "currency", 'must be an ISO 4217 code such as "USD"')


def _check_metadata(checks: FieldChecks, text: str) -> None:
    if not text:
        return
    short = len(text.encode()) <= METADATA_BYTES_MAX
    if checks.require(short, "metadata", f"must be at most {METADATA_BYTES_MAX} bytes of JSON"):
        checks.require(_is_json_object(text), "metadata", "must be a JSON object")


def _is_json_object(text: str) -> bool:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"JSON has no {name}")


_CUSTOMER_CHECKS = {
    "name": _check_name,
    "email": _check_email,
    "time_zone": _check_time_zone,
    "currency": _check_customer_currency,
    "metadata_json": _check_metadata,
}


def check_plan(given: PlanInput, *, name_required: bool = True) -> PlanContent:
    """The plan's content; InvalidArgumentError names all that is wrong."""
    checks = FieldChecks()
    content = _plan_content(checks, given, name_required)
    checks.done()
    return content


def check_quote(
    given: PlanInput, quantities: Mapping[str, str]
) -> tuple[PlanContent, dict[str, Decimal]]:
    """The plan and a quantity for each metric that has one; InvalidArgumentError names all wrong.

    The plan needs no name; a quantity of a metric that the plan does not price is refused.
    """
    checks = FieldChecks()
    content = _plan_content(checks, given, name_required=False)
    priced = {price.metric for price in given.metrics}
    exact = {}
    for metric, text in quantities.items():
        name = f"quantities.{metric}"
        if checks.require(metric in priced, name, "the plan has no price for it"):
            exact[metric] = checks.decimal(text, name)
    checks.done()
    return content, exact


def _plan_content(checks: FieldChecks, given: PlanInput, name_required: bool) -> PlanContent:
    if name_required:
        checks.require(bool(given.name.strip()), "name", "is required")
    _check_name(checks, given.name)
    _check_currency(checks, given.currency)
    base_price = checks.decimal(given.base_price or "0", "basePrice", digits_max=MONEY_DIGITS_MAX)
    known = given.billing_period in BillingPeriod.__members__
    checks.require(known, "billingPeriod", f"must be one of {', '.join(BillingPeriod)}")
    few = len(given.metrics) <= PLAN_METRICS_MAX
    if checks.require(few, "metrics", f"must be at most {PLAN_METRICS_MAX}"):
        metrics = _metric_prices(checks, given.metrics)
    else:
        metrics = ()
    return PlanContent(
        name=given.name,
        currency=given.currency,
        base_price=base_price,
        billing_period=BillingPeriod(given.billing_period) if known else BillingPeriod.MONTHLY,
        metrics=metrics,
    )


def _metric_prices(
    checks: FieldChecks, given: Sequence[MetricPriceInput]
) -> tuple[MetricPrice, ...]:
    seen: set[str] = set()
    prices = []
    for index, price in enumerate(given):
        where = f"metrics[{index}]"
        right = _METRIC.fullmatch(price.metric) is not None
        checks.require(right, f"{where}.metric", "must be 1-128 characters of A-Z a-z 0-9 _ . : -")
        once = price.metric not in seen
        checks.require(once, f"{where}.metric", "must not come twice in a plan")
        seen.add(price.metric)
        included = checks.decimal(price.included_units or "0", f"{where}.includedUnits")
        kind = PRICING_MODELS.get(price.model)
        if kind is None:
            allowed = f"must be one of {', '.join(PRICING_MODELS)}"
            checks.require(False, f"{where}.model", allowed)
        else:
            model = kind.parse(price.parameters, where, checks)
            prices.append(MetricPrice(price.metric, included, model))
    return tuple(prices)


def check_start(checks: FieldChecks, start: datetime | None, now: datetime) -> datetime:
    """When a subscription starts: `start`, or the start of the running quarter of an hour."""
    if start is None:
        return quarter_hour_of(now)
    checks.require(is_on_quarter_hour(start), "startsAt", "must lie on a quarter of an hour")
    earliest = now - timedelta(days=START_DAYS_AGO_MAX)
    latest = now + timedelta(days=START_DAYS_AHEAD_MAX)
    message = f"must be from {START_DAYS_AGO_MAX} days ago to {START_DAYS_AHEAD_MAX} days ahead"
    checks.require(earliest <= start <= latest, "startsAt", message)
    return start


def check_anchor(checks: FieldChecks, name: str) -> BillingAnchor:
    """The anchor called `name`; CALENDAR when there is none of that name."""
    known = name in BillingAnchor.__members__
    checks.require(known, "billingAnchor", f"must be one of {', '.join(BillingAnchor)}")
    return BillingAnchor(name) if known else BillingAnchor.CALENDAR


def wrong_field(name: str, message: str) -> InvalidArgumentError:
    """A single problem."""
    return InvalidArgumentError([FieldProblem(name, message)])
