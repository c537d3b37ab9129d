"""What a request may contain; all problems are named at once, as in the HTTP contract. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from services.invoicer.domain import BasePriceTiming, MetricPrice, PlanContent, UsageLimit
from services.invoicer.exact import ZERO, add, total
from services.invoicer.periods import (
    BillingAnchor,
    BillingPeriod,
    is_on_quarter_hour,
    is_time_zone,
    quarter_hour_of,
)
from services.invoicer.pricing.charge import Limits
from services.invoicer.pricing.dimensional import Dimensional
from services.invoicer.pricing.percentage import Percentage
from services.invoicer.pricing.registry import PRICING_MODELS
from services.invoicer.pricing.usage import MetricUsage
from services.invoicer.term_checks import (
    CONTROL,
    MONEY_DIGITS_MAX,
    DiscountInput,
    check_discounts,
)
from services.kit.errors import FieldChecks, FieldProblem, InvalidArgumentError
from services.kit.events import IDEMPOTENCY_KEY_CHARS_MAX
from services.kit.money import is_currency

NAME_CHARS_MAX = 200
EMAIL_CHARS_MAX = 254
CUSTOMER_ID_CHARS_MAX = 255
METADATA_BYTES_MAX = 8 * 1024
PLAN_METRICS_MAX = 100
USAGE_LIMIT_ENFORCEMENTS = ("HARD", "SOFT")
# A subscription asks for up to 100 periods in one message of at most 16 MiB.
PLAN_MATCH_BYTES_MAX = 100_000
QUOTE_EVENTS_MAX = 10_000
QUOTE_GROUPS_MAX = 1_000
# What 38 digits hold with 12 of them after the point.
QUANTITY_BELOW = Decimal("1E26")
START_DAYS_AGO_MAX = 400
START_DAYS_AHEAD_MAX = 400

CUSTOMER_FIELDS = ("name", "email", "time_zone", "currency", "metadata_json")
TIME_ZONE_DEFAULT = "UTC"

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
    minimum: str = ""
    maximum: str = ""
    usage_limit: str = ""
    usage_limit_enforcement: str = "HARD"


@dataclass(frozen=True, slots=True)
class PlanInput:
    """A plan as asked for."""

    name: str
    currency: str
    base_price: str
    billing_period: str
    metrics: Sequence[MetricPriceInput]
    base_price_timing: str = "IN_ARREARS"
    setup_fee: str = ""
    discounts: Sequence[DiscountInput] = ()
    minimum: str = ""
    maximum: str = ""


@dataclass(frozen=True, slots=True)
class QuoteInput:
    """A plan and usage to calculate with; each of a metric's usages is told in one way.

    `events`: the amounts. `groups`: dimension values with a quantity.
    """

    plan: PlanInput
    quantities: Mapping[str, str] = field(default_factory=dict)
    events: Mapping[str, Sequence[str]] = field(default_factory=dict)
    groups: Mapping[str, Sequence[tuple[Mapping[str, str], str]]] = field(default_factory=dict)


def check_customer_id(checks: FieldChecks, customer_id: str, name: str) -> None:
    """Note a problem unless `customer_id` can be a customer's id."""
    right = 1 <= len(customer_id) <= CUSTOMER_ID_CHARS_MAX and not CONTROL.search(customer_id)
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
    right = len(name) <= NAME_CHARS_MAX and not CONTROL.search(name)
    message = f"must have at most {NAME_CHARS_MAX} characters and no control characters"
    checks.require(right, "name", message)


def _check_email(checks: FieldChecks, email: str) -> None:
    right = len(email) <= EMAIL_CHARS_MAX and _EMAIL.fullmatch(email) is not None
    checks.require(not email or (right and not CONTROL.search(email)), "email", "is no address")


def _check_time_zone(checks: FieldChecks, name: str) -> None:
    known = not name or is_time_zone(name)
    checks.require(known, "timezone", 'must be an IANA time zone such as "Europe/Berlin"')


def _check_customer_currency(checks: FieldChecks, code: str) -> None:
    if code:
        _check_currency(checks, code)


def _check_currency(checks: FieldChecks, code: str) -> None:
    checks.require(is_currency(code), "currency", 'must be an ISO 4217 code such as "USD"')


def check_metadata(checks: FieldChecks, text: str) -> None:
    """Note a problem unless `text` is "" or a JSON object that is not too long."""
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
    "metadata_json": check_metadata,
}


def check_plan(given: PlanInput, unpriceable: Mapping[str, str]) -> PlanContent:
    """The plan's content; InvalidArgumentError names all that is wrong.

    `unpriceable`: metrics that can't be priced, and why.
    """
    checks = FieldChecks()
    checks.require(bool(given.name.strip()), "name", "is required")
    content = check_draft(checks, given, unpriceable)
    checks.done()
    return content


def check_draft(
    checks: FieldChecks, given: PlanInput, unpriceable: Mapping[str, str]
) -> PlanContent:
    """A plan to calculate with, which needs no name; problems go to `checks`."""
    for index, price in enumerate(given.metrics):
        if price.metric in unpriceable:
            checks.require(False, f"metrics[{index}].metric", unpriceable[price.metric])
    return _plan_content(checks, given)


def check_quote(given: QuoteInput) -> tuple[PlanContent, dict[str, MetricUsage]]:
    """The plan and the usage of each metric that has some; InvalidArgumentError names all wrong.

    The plan needs no name; usage of a metric that the plan does not price is refused.
    """
    checks = FieldChecks()
    content = _plan_content(checks, given.plan)
    priced = {price.metric for price in given.plan.metrics}
    told: dict[str, str] = {}
    for kind in ("quantities", "events", "groups"):
        for metric in getattr(given, kind):
            name = f"{kind}.{metric}"
            checks.require(metric in priced, name, "the plan has no price for it")
            once = metric not in told
            checks.require(once, name, "give only one of quantities, events and groups")
            told[metric] = kind
    usages = {
        price.metric: _quoted_usage(checks, price, given, told[price.metric])
        for price in content.metrics
        if price.metric in told
    }
    checks.done()
    return content, usages


def _quoted_usage(
    checks: FieldChecks, price: MetricPrice, given: QuoteInput, kind: str
) -> MetricUsage:
    metric, model = price.metric, price.model
    if kind == "events":
        texts = given.events[metric]
        amounts = tuple(_amounts(checks, f"events.{metric}", texts, QUOTE_EVENTS_MAX))
        return MetricUsage(total(amounts), event_count=len(amounts), events=amounts)
    if kind == "groups":
        field, groups = f"groups.{metric}", given.groups[metric]
        amounts = tuple(_amounts(checks, field, [text for _, text in groups], QUOTE_GROUPS_MAX))
        if not isinstance(model, Dimensional):
            checks.require(False, field, "only a price of the model DIMENSIONAL depends on groups")
            return MetricUsage(ZERO)
        quantities = [ZERO] * (len(model.prices) + 1)
        for (group, _), amount in zip(groups, amounts, strict=False):
            part = model.part_of(group)
            quantities[part] = add(quantities[part], amount)
        return MetricUsage(total(quantities), parts=model.parts(quantities))
    by_event = isinstance(model, Percentage) and (model.needs_events or model.fixed_per_event > 0)
    message = "is required in place of quantities: the price depends on each event"
    checks.require(not by_event, f"events.{metric}", message)
    return MetricUsage(checks.decimal(given.quantities[metric], f"quantities.{metric}"))


def _amounts(
    checks: FieldChecks, field: str, texts: Sequence[str], amounts_max: int
) -> list[Decimal]:
    """The decimals; none when they are too many or sum to more than can be multiplied exactly."""
    if not checks.require(len(texts) <= amounts_max, field, f"must be at most {amounts_max:,}"):
        return []
    amounts = [checks.decimal(text, f"{field}[{index}]") for index, text in enumerate(texts)]
    small = total(amounts) < QUANTITY_BELOW
    return amounts if checks.require(small, field, f"must sum to less than 1E{26}") else []


def _plan_content(checks: FieldChecks, given: PlanInput) -> PlanContent:
    _check_name(checks, given.name)
    _check_currency(checks, given.currency)
    base_price = checks.decimal(given.base_price or "0", "basePrice", digits_max=MONEY_DIGITS_MAX)
    known = given.billing_period in BillingPeriod.__members__
    checks.require(known, "billingPeriod", f"must be one of {', '.join(BillingPeriod)}")
    timed = given.base_price_timing in BasePriceTiming.__members__
    checks.require(timed, "basePriceTiming", f"must be one of {', '.join(BasePriceTiming)}")
    setup_fee = checks.decimal(given.setup_fee or "0", "setupFee", digits_max=MONEY_DIGITS_MAX)
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
        base_price_timing=BasePriceTiming(given.base_price_timing if timed else "IN_ARREARS"),
        setup_fee=setup_fee,
        discounts=check_discounts(checks, given.discounts),
        limits=_limits(checks, given.minimum, given.maximum, ""),
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
            limits = _limits(checks, price.minimum, price.maximum, f"{where}.")
            usage_limit = _usage_limit(checks, price, where)
            prices.append(MetricPrice(price.metric, included, model, limits, usage_limit))
    models = [price.model for price in prices if isinstance(price.model, Dimensional)]
    short = sum(model.match_bytes for model in models) <= PLAN_MATCH_BYTES_MAX
    checks.require(short, "metrics", f"must match at most {PLAN_MATCH_BYTES_MAX:,} bytes in all")
    return tuple(prices)


def _usage_limit(checks: FieldChecks, price: MetricPriceInput, where: str) -> UsageLimit | None:
    known = price.usage_limit_enforcement in USAGE_LIMIT_ENFORCEMENTS
    allowed = f"must be one of {', '.join(USAGE_LIMIT_ENFORCEMENTS)}"
    checks.require(known, f"{where}.usageLimitEnforcement", allowed)
    if not price.usage_limit:
        return None
    units = checks.decimal(price.usage_limit, f"{where}.usageLimit")
    return UsageLimit(units, price.usage_limit_enforcement)


def _limits(checks: FieldChecks, least: str, most: str, where: str) -> Limits:
    minimum = _optional_money(checks, least, f"{where}minimum")
    maximum = _optional_money(checks, most, f"{where}maximum")
    fits = minimum is None or maximum is None or minimum <= maximum
    checks.require(fits, f"{where}maximum", "must not be less than minimum")
    return Limits(minimum, maximum)


def _optional_money(checks: FieldChecks, text: str, name: str) -> Decimal | None:
    return checks.decimal(text, name, digits_max=MONEY_DIGITS_MAX) if text else None


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


def check_idempotency_key(checks: FieldChecks, key: str) -> None:
    """Note a problem unless `key` can be an idempotency key, or is "": none."""
    right = len(key) <= IDEMPOTENCY_KEY_CHARS_MAX and key.isascii() and key.isprintable()
    message = f"must be 1-{IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters"
    checks.require(not key or right, "Idempotency-Key", message)


def wrong_field(name: str, message: str) -> InvalidArgumentError:
    """A single problem."""
    return InvalidArgumentError([FieldProblem(name, message)])
