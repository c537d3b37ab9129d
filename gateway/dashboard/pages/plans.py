"""/dashboard/plans"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final
from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.invoicer.v1 import invoicer_pb2

from gateway.calls import Calls
from gateway.dashboard import questions
from gateway.dashboard.charts.curve import Curve, priced
from gateway.dashboard.charts.scale import nice_maximum
from gateway.dashboard.forms import ETAG, Form, problem
from gateway.dashboard.text import number as grouped
from gateway.dashboard.visit import Visit, Visited, html
from gateway.fields import Quantity
from gateway.shapes import plans
from gateway.shapes.plans import NewMetricPrice, NewPlan, Plan, QuotedPlan, QuoteRequest
from services.kit.errors import DomainError, InvalidArgumentError
from services.kit.money import is_currency, minor_digits

MODELS: Final = (
    ("PER_UNIT", "Per unit"),
    ("GRADUATED", "Graduated: each tier's units at its own price"),
    ("VOLUME", "Volume: all units at the price of the tier reached"),
    ("STAIRSTEP", "Stairstep: a flat price for the tier reached"),
    ("PACKAGE", "Packages: a price for every so many units"),
    ("PERCENTAGE", "Percentage of each event's amount"),
    ("DIMENSIONAL", "By dimension, such as model or region"),
)
PERIODS: Final = (
    ("MONTHLY", "Monthly"),
    ("WEEKLY", "Weekly"),
    ("QUARTERLY", "Quarterly"),
    ("YEARLY", "Yearly"),
)
TIMINGS: Final = (("IN_ARREARS", "At the period's end"), ("IN_ADVANCE", "At the period's start"))
# Points of a price's curve; each is a quote.
POINTS: Final = 24
CHARTS_MAX: Final = 8
# Jumps of a price that its curve shows upright.
JUMPS_MAX: Final = 12
# However low a price is.
UNITS_SHOWN_MAX: Final = Decimal(1_000_000_000)
# Of a chart: prices by dimension beyond them are in the table only.
LINES_MAX: Final = 6
QUANTITY_DEFAULT: Final = Decimal(10_000)
EVENT_AMOUNT_DEFAULT: Final = Decimal(100)
EVENTS_MAX: Final = 1_000
_QUANTITY_BELOW: Final = Decimal(10) ** 15


@dataclass(frozen=True, slots=True)
class Use:
    """Usage to calculate with; where the price depends on each event, in events of an amount."""

    quantity: Decimal
    event_amount: Decimal = EVENT_AMOUNT_DEFAULT


@dataclass(frozen=True, slots=True)
class PriceCurve:
    """What one metric of a plan costs by quantity; `of` says what the quantity is."""

    metric: str
    of: str
    curve: Curve


@get("/dashboard/plans", include_in_schema=False)
async def list_plans(visit: Visited) -> Response[bytes]:
    """What customers can be put on."""
    return visit.page("plans.html", plans=await questions.all_plans(visit.calls))


@get("/dashboard/plans/new", include_in_schema=False)
async def new_plan(visit: Visited) -> Response[bytes]:
    """The editor, empty."""
    visit.require("billing")
    form = Form([("currency", "USD"), ("basePrice", "0"), ("metrics[0].model", "PER_UNIT")])
    return await _editor(visit, form, None)


@post("/dashboard/plans/new", include_in_schema=False)
async def create_plan(visit: Visited) -> Response[bytes]:
    """Make a plan."""
    try:
        plan = _read(visit.form, NewPlan)
        request = invoicer_pb2.CreatePlanRequest(plan=plans.to_proto(plan))
        answer = await visit.calls.call(visit.calls.invoicer.CreatePlan, request)
    except DomainError as error:
        visit.form.refuse(error)
        return await _editor(visit, visit.form, None, 400)
    return visit.go(_path(answer.plan.id), "created")


@get("/dashboard/plans/{plan_id:str}", include_in_schema=False)
async def show_plan(visit: Visited, plan_id: FromPath[str]) -> Response[bytes]:
    """A version of a plan, with what it costs by quantity."""
    version = visit.request.query_params.get("version", "")
    plan = await _plan(visit.calls, plan_id, int(version) if version.isdecimal() else 0)
    newest = await _plan(visit.calls, plan_id, 0) if version else plan
    return visit.page(
        "plan.html",
        plan=plan,
        newest=newest,
        models=dict(MODELS),
        curves=await _curves(visit.calls, _quoted(plan), []),
    )


@get("/dashboard/plans/{plan_id:str}/edit", include_in_schema=False)
async def edit_plan(visit: Visited, plan_id: FromPath[str]) -> Response[bytes]:
    """The editor with a plan's newest version in it."""
    visit.require("billing")
    plan = await _plan(visit.calls, plan_id, 0)
    return await _editor(visit, _newest(plan), plan)


@post("/dashboard/plans/{plan_id:str}/edit", include_in_schema=False)
async def change_plan(visit: Visited, plan_id: FromPath[str]) -> Response[bytes]:
    """Make the plan's next version; those who are on an older one stay there."""
    plan = await _plan(visit.calls, plan_id, 0)
    if visit.form.if_match not in ([], _newest(plan).if_match):
        # Both versions would stay, but the newest would not have what the other one changed.
        return await _editor(visit, visit.form.outdated(_newest(plan)), plan, 412)
    try:
        changed = plans.to_proto(_read(visit.form, NewPlan), plan_id)
        request = invoicer_pb2.CreatePlanVersionRequest(plan=changed)
        await visit.calls.call(visit.calls.invoicer.CreatePlanVersion, request)
    except DomainError as error:
        visit.form.refuse(error)
        return await _editor(visit, visit.form, plan, 400)
    return visit.go(_path(plan_id), "saved")


@post("/dashboard/plans/preview", include_in_schema=False)
async def preview_plan(visit: Visited) -> Response[bytes]:
    """What the plan in the editor would cost: a part of its page."""
    try:
        plan = _read(visit.form, QuotedPlan)
        uses = [_use(visit.form, row, price) for row, price in enumerate(plan.metrics)]
        request = plans.quote_to_proto(_question(plan, uses))
        answer = await visit.calls.call(visit.calls.invoicer.QuotePlan, request)
        curves = await _curves(visit.calls, plan, uses)
    except InvalidArgumentError as error:
        return html(visit.fragment("plan_preview.html", quote=None, problems=error.problems))
    return html(
        visit.fragment(
            "plan_preview.html",
            quote=plans.quote_from_proto(answer),
            period=dict(PERIODS)[plan.billing_period].lower(),
            curves=curves,
            problems=[],
        )
    )


def _newest(plan: Plan) -> Form:
    """The editor with a plan's newest version in it."""
    return Form([*filled(plan), (ETAG, str(plan.version))])


async def _editor(
    visit: Visit, form: Form, plan: Plan | None, status: int = 200
) -> Response[bytes]:
    return visit.page(
        "plan_edit.html",
        status,
        form=form,
        plan=plan,
        rows=form.indexes("metrics") or [0],
        discounts=form.indexes("discounts") or [0],
        metrics=await questions.all_metrics(visit.calls),
        models=MODELS,
        periods=PERIODS,
        timings=TIMINGS,
        quantity=QUANTITY_DEFAULT,
        event_amount=EVENT_AMOUNT_DEFAULT,
    )


def _read(form: Form, shape: type[NewPlan]) -> NewPlan:
    """The plan in the editor, without rows of prices where nothing was filled in, nor what belongs
    to another pricing model than the one that was chosen.
    """
    form.drop("metrics", {row for row in form.indexes("metrics") if _is_blank(form, row)})
    kept = []
    for name, text in form.pairs:
        row = form.row_of("metrics", name)
        if row is None or _belongs(name, form.get(f"metrics[{row}].model")):
            kept.append((name, text))
    document = Form(written(kept))
    return document.read(shape)


def _is_blank(form: Form, row: int) -> bool:
    """Whether nothing was filled in but what is chosen from the beginning."""
    return not any(
        text and _member(name) not in _CHOSEN
        for name, text in form.pairs
        if form.row_of("metrics", name) == row and "._" not in name
    )


def _belongs(name: str, model: str | None) -> bool:
    for fields, models in _FIELDS:
        if _member(name) in fields:
            return model in models
    return True


def _member(name: str) -> str:
    """Of "metrics[0].tiers[1].unitPrice" it is "tiers[].unitPrice"."""
    return _ROW.sub("[]", name.partition("].")[2])


# One that separates.
_COMMA: Final = re.compile(r"(?<!\\),")
_ROW: Final = re.compile(r"\[[^\[\]]*\]")
_CHOSEN: Final = ("model", "usageLimitEnforcement")
_TIERED: Final = ("GRADUATED", "VOLUME", "STAIRSTEP")
_FIELDS: Final = (
    (("unitPrice",), ("PER_UNIT", "DIMENSIONAL")),
    (("tiers[].upTo", "tiers[].flatPrice"), _TIERED),
    # A step has one price.
    (("tiers[].unitPrice",), ("GRADUATED", "VOLUME")),
    (("packageSize", "packagePrice"), ("PACKAGE",)),
    (
        ("rate", "fixedPerEvent", "freeEvents", "freeAmount", "minPerEvent", "maxPerEvent"),
        ("PERCENTAGE",),
    ),
    (("prices[].match", "prices[].unitPrice"), ("DIMENSIONAL",)),
)


def written(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """A price's dimension values, written as "model=gpt-4, region=eu", as the Struct has them.

    A comma of a value has a backslash before it.
    """
    found = []
    for name, text in pairs:
        if not name.endswith("].match"):
            found.append((name, text))
            continue
        for part in _COMMA.split(text):
            dimension, equals, value = part.replace("\\,", ",").partition("=")
            if text and not (equals and dimension.strip()):
                raise problem(name, 'must be written as "model=gpt-4"; several separated by commas')
            if equals:
                found.append((f"{name}[{dimension.strip()}]", value.strip()))
    return found


def _use(form: Form, row: int, price: NewMetricPrice) -> Use:
    """How much the preview is asked for."""
    start = f"metrics[{row}]"
    use = Use(
        _decimal(form, f"{start}._quantity", QUANTITY_DEFAULT),
        _decimal(form, f"{start}._eventAmount", EVENT_AMOUNT_DEFAULT),
    )
    if price.model == "PERCENTAGE":
        if use.event_amount == 0:
            raise problem(f"{start}._eventAmount", "must be more than 0")
        if use.quantity > use.event_amount * EVENTS_MAX:
            most = f"{use.event_amount * EVENTS_MAX:,f}"
            raise problem(f"{start}._quantity", f"must be at most {most}: {EVENTS_MAX:,} events")
    return use


def _decimal(form: Form, name: str, default: Decimal) -> Decimal:
    try:
        number = Decimal(form.get(name, "").replace(",", "") or default)
    except InvalidOperation:
        raise problem(name, "must be a number") from None
    if not (number.is_finite() and 0 <= number < _QUANTITY_BELOW):
        raise problem(name, "must be from 0 to 999,999,999,999,999")
    return number


def _question(plan: NewPlan, uses: Sequence[Use]) -> QuoteRequest:
    """A question for the prices with usage; of each price by dimension it is as much."""
    asked = QuoteRequest(plan=_as_quoted(plan), quantities={}, events={}, groups={})
    for price, use in zip(plan.metrics, uses, strict=True):
        _add_use(asked, price, use, _matches(price))
    return asked


def _matches(price: NewMetricPrice) -> list[dict[str, str]]:
    """The dimensions of which a price depends, and at the end none: what fits nowhere."""
    return [*(each.match for each in price.prices), {}]


def _add_use(
    asked: QuoteRequest, price: NewMetricPrice, use: Use, matches: Sequence[dict[str, str]]
) -> None:
    if price.model == "PERCENTAGE":
        amount = Quantity(f"{use.event_amount:f}")
        asked.events[price.metric] = [amount] * int(use.quantity // use.event_amount)
    elif price.model == "DIMENSIONAL":
        value = Quantity(f"{use.quantity:f}")
        asked.groups[price.metric] = [
            plans.GroupQuantity(group=match, value=value) for match in matches
        ]
    else:
        asked.quantities[price.metric] = Quantity(f"{use.quantity:f}")


async def _curves(calls: Calls, plan: NewPlan, uses: Sequence[Use]) -> list[PriceCurve]:
    """A curve for each metric, up to its quantity or what shows its tiers best."""
    return [
        await _curve(calls, plan, price, uses[row] if row < len(uses) else Use(Decimal(0)))
        for row, price in enumerate(plan.metrics[:CHARTS_MAX])
    ]


async def _curve(calls: Calls, plan: NewPlan, price: NewMetricPrice, wanted: Use) -> PriceCurve:
    # Whole events, where the price depends on them.
    unit = wanted.event_amount if price.model == "PERCENTAGE" else Decimal(1)
    worth_seeing = _interesting(price, wanted.event_amount, plan.currency)
    last = max(wanted.quantity, worth_seeing) // unit
    last, _step = nice_maximum(max(last, Decimal(POINTS)))
    even = {(last * point / POINTS).to_integral_value() for point in range(POINTS + 1)}
    jumps = {each for end in _jumps(price) for each in (end, end + 1) if each <= last}
    steps = [step * unit for step in sorted(even | jumps)]
    matches = _matches(price)
    shown = matches if len(matches) <= LINES_MAX else [*matches[: LINES_MAX - 1], {}]
    alone = _as_quoted(NewPlan(name="", currency=plan.currency, metrics=[price]))
    requests = []
    for match in shown:
        for step in steps:
            asked = QuoteRequest(plan=alone, quantities={}, events={}, groups={})
            _add_use(asked, price, Use(step, wanted.event_amount), [match])
            requests.append(plans.quote_to_proto(asked))
    answers = await questions.together(
        [calls.call(calls.invoicer.QuotePlan, request) for request in requests]
    )
    amounts = [Decimal(answer.amount) for answer in answers]
    count = len(steps)
    lines = [
        (_label(match), amounts[number * count : (number + 1) * count])
        for number, match in enumerate(shown)
    ]
    of = "quantity"
    if price.model == "PERCENTAGE":
        of = f"volume, in events of {grouped(wanted.event_amount)}"
    return PriceCurve(price.metric, of, priced(steps, lines, plan.currency))


def _label(match: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in match.items()) or "any other"


def _jumps(price: NewMetricPrice) -> list[Decimal]:
    """After which quantities the amount jumps, as a curve through even steps would not show it."""
    if price.package_size:
        size = Decimal(price.package_size)
        ends = [size * count for count in range(JUMPS_MAX)]
    else:
        ends = [Decimal(tier.up_to) for tier in price.tiers[:JUMPS_MAX] if tier.up_to]
    return [Decimal(price.included_units) + end for end in ends]


def _interesting(price: NewMetricPrice, event_amount: Decimal, currency: str) -> Decimal:
    """Up to where a price has something to show: twice what is included or free, somewhat beyond
    its tiers, some packages, otherwise so many units that an amount isn't all rounding.
    """
    ends = [Decimal(price.included_units) * 2]
    if price.model == "PERCENTAGE":
        free = max(
            Decimal(price.free_amount or 0), Decimal(price.free_events or 0) * event_amount, *ends
        )
        return min(max(event_amount * POINTS, free * 2), event_amount * EVENTS_MAX)
    limits = [Decimal(tier.up_to) for tier in price.tiers if tier.up_to]
    if limits:
        ends.append(max(limits) * Decimal("1.5"))
    if price.package_size:
        ends.append(Decimal(price.package_size) * 6)
    if not max(ends):
        ends.append(_worth(price, currency))
    return max(ends)


def _worth(price: NewMetricPrice, currency: str) -> Decimal:
    """How many units come to 1,000 of the currency's smallest coins, at the highest price; 1,000
    units at least.
    """
    digits = minor_digits(currency) if is_currency(currency) else 2
    unit_prices = [price.unit_price, *(each.unit_price for each in price.prices)]
    highest = max(Decimal(each or 0) for each in unit_prices)
    coins = Decimal(1_000).scaleb(-digits)
    return max(Decimal(1_000), min(coins / highest, UNITS_SHOWN_MAX) if highest else Decimal(0))


def filled(plan: Plan) -> list[tuple[str, str]]:
    """The editor's fields for a plan: what its JSON says, by the names of the fields."""
    pairs = [
        ("name", plan.name),
        ("currency", plan.currency),
        ("basePrice", plan.base_price),
        ("basePriceTiming", plan.base_price_timing),
        ("setupFee", plan.setup_fee),
        ("billingPeriod", plan.billing_period),
        ("minimum", plan.minimum or ""),
        ("maximum", plan.maximum or ""),
    ]
    for row, price in enumerate(plan.metrics):
        start = f"metrics[{row}]"
        for member in price.__struct_fields__:
            value = getattr(price, member)
            if isinstance(value, str):
                pairs.append((f"{start}.{_camel(member)}", value))
        for number, tier in enumerate(price.tiers):
            for member in tier.__struct_fields__:
                text = getattr(tier, member) or ""
                pairs.append((f"{start}.tiers[{number}].{_camel(member)}", text))
        for number, each in enumerate(price.prices):
            match = ", ".join(
                f"{name}={value}".replace(",", "\\,") for name, value in each.match.items()
            )
            pairs.append((f"{start}.prices[{number}].match", match))
            pairs.append((f"{start}.prices[{number}].unitPrice", each.unit_price))
    for number, discount in enumerate(plan.discounts):
        start = f"discounts[{number}]"
        pairs += [
            (f"{start}.name", discount.name),
            (f"{start}.percent", discount.percent or ""),
            (f"{start}.amount", discount.amount or ""),
            (f"{start}.periods", str(discount.periods or "")),
        ]
    return pairs


def _camel(member: str) -> str:
    first, *rest = member.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _quoted(plan: Plan) -> NewPlan:
    """A plan that there is, to calculate with."""
    form = Form(written(filled(plan)))
    return form.read(NewPlan)


def _as_quoted(plan: NewPlan) -> QuotedPlan:
    if isinstance(plan, QuotedPlan):
        return plan
    return QuotedPlan(**{name: getattr(plan, name) for name in plan.__struct_fields__})


async def _plan(calls: Calls, plan_id: str, version: int) -> Plan:
    request = invoicer_pb2.GetPlanRequest(plan_id=plan_id, version=version)
    return plans.from_proto((await calls.call(calls.invoicer.GetPlan, request)).plan)


def _path(plan_id: str) -> str:
    return f"/dashboard/plans/{quote(plan_id, safe='')}"


HANDLERS = [
    list_plans,
    new_plan,
    create_plan,
    show_plan,
    edit_plan,
    change_plan,
    preview_plan,
]
