"""/dashboard/plans"""

from collections.abc import Sequence
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
from gateway.dashboard.forms import Form, problem
from gateway.dashboard.visit import Visit, Visited, html
from gateway.fields import Quantity
from gateway.shapes import plans
from gateway.shapes.plans import NewMetricPrice, NewPlan, Plan, QuotedPlan, QuoteRequest
from services.kit.errors import DomainError, InvalidArgumentError

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
QUANTITY_DEFAULT: Final = Decimal(10_000)
_EVENTS_MAX: Final = 1_000
_EVENT_AMOUNT: Final = "100"


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
    form = Form([("currency", "USD"), ("basePrice", "0"), ("metrics[0].model", "PER_UNIT")])
    return await _editor(visit, form, None)


@post("/dashboard/plans/new", include_in_schema=False)
async def create_plan(visit: Visited) -> Response[bytes]:
    """Make a plan."""
    try:
        request = invoicer_pb2.CreatePlanRequest(plan=plans.to_proto(_read(visit.form)))
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
    plan = await _plan(visit.calls, plan_id, 0)
    return await _editor(visit, Form(filled(plan)), plan)


@post("/dashboard/plans/{plan_id:str}/edit", include_in_schema=False)
async def change_plan(visit: Visited, plan_id: FromPath[str]) -> Response[bytes]:
    """Make the plan's next version; those who are on an older one stay there."""
    plan = await _plan(visit.calls, plan_id, 0)
    try:
        changed = plans.to_proto(_read(visit.form), plan_id)
        # What the editor does not show stays as it is.
        changed.discounts.extend(discounts_of(plan))
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
        quantities = [_quantity(visit.form, row) for row in range(len(plan.metrics))]
        asked = _question(plan, quantities)
        request = plans.quote_to_proto(asked)
        answer = await visit.calls.call(visit.calls.invoicer.QuotePlan, request)
        curves = await _curves(visit.calls, plan, quantities)
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


async def _editor(
    visit: Visit, form: Form, plan: Plan | None, status: int = 200
) -> Response[bytes]:
    return visit.page(
        "plan_edit.html",
        status,
        form=form,
        plan=plan,
        rows=form.indexes("metrics") or [0],
        metrics=await questions.all_metrics(visit.calls),
        models=MODELS,
        periods=PERIODS,
        timings=TIMINGS,
        quantity=QUANTITY_DEFAULT,
    )


def _read(form: Form, shape: type[NewPlan] = NewPlan) -> NewPlan:
    """The plan in the editor, without rows of prices where no metric was chosen, nor what belongs
    to another pricing model than the one that was chosen.
    """
    kept = []
    for name, text in form.pairs:
        row = form.row_of("metrics", name)
        if row is None or (
            form.get(f"metrics[{row}].metric") and _belongs(name, form.get(f"metrics[{row}].model"))
        ):
            kept.append((name, text))
    document = Form(_renamed_matches(kept))
    return document.read(shape)


def _belongs(name: str, model: str | None) -> bool:
    field = name.partition("].")[2]
    member = field.partition("[")[0].partition(".")[0]
    for fields, models in _FIELDS:
        if member in fields:
            return model in models
    return True


_TIERED: Final = ("GRADUATED", "VOLUME", "STAIRSTEP")
_FIELDS: Final = (
    (("unitPrice",), ("PER_UNIT", "DIMENSIONAL")),
    (("tiers",), _TIERED),
    (("packageSize", "packagePrice"), ("PACKAGE",)),
    (
        ("rate", "fixedPerEvent", "freeEvents", "freeAmount", "minPerEvent", "maxPerEvent"),
        ("PERCENTAGE",),
    ),
    (("prices",), ("DIMENSIONAL",)),
)


def _renamed_matches(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """A price's dimension values, written as "model=gpt-4, region=eu", as the Struct has them."""
    found = []
    for name, text in pairs:
        if not name.endswith("].match"):
            found.append((name, text))
            continue
        for part in text.split(","):
            dimension, equals, value = part.partition("=")
            if text and not (equals and dimension.strip()):
                raise problem(name, 'must be written as "model=gpt-4"; several separated by commas')
            if equals:
                found.append((f"{name}[{dimension.strip()}]", value.strip()))
    return found


def _quantity(form: Form, row: int) -> Decimal:
    """How many units the preview is asked for."""
    name = f"_quantity[{row}]"
    try:
        quantity = Decimal(form.get(name, "").replace(",", "") or QUANTITY_DEFAULT)
    except InvalidOperation:
        raise problem(name, "must be a number") from None
    if not (quantity.is_finite() and 0 <= quantity < Decimal(10) ** 15):
        raise problem(name, "must be from 0 to 999,999,999,999,999")
    return quantity


def _question(plan: NewPlan, quantities: Sequence[Decimal]) -> QuoteRequest:
    """Usage to calculate with: quantities, and for percentages events of 100 each."""
    asked = QuoteRequest(plan=_as_quoted(plan), quantities={}, events={}, groups={})
    for price, quantity in zip(plan.metrics, quantities, strict=True):
        _add_usage(asked, price, quantity)
    return asked


def _add_usage(asked: QuoteRequest, price: NewMetricPrice, quantity: Decimal) -> None:
    if price.model == "PERCENTAGE":
        count = int(min(quantity / Decimal(_EVENT_AMOUNT), Decimal(_EVENTS_MAX)))
        asked.events[price.metric] = [Quantity(_EVENT_AMOUNT)] * count
    elif price.model == "DIMENSIONAL":
        match = price.prices[0].match if price.prices else {}
        asked.groups[price.metric] = [
            plans.GroupQuantity(group=match, value=Quantity(f"{quantity:f}"))
        ]
    else:
        asked.quantities[price.metric] = Quantity(f"{quantity:f}")


async def _curves(calls: Calls, plan: NewPlan, quantities: Sequence[Decimal]) -> list[PriceCurve]:
    """A curve for each metric, up to its quantity or what shows its tiers best."""
    return [
        await _curve(calls, plan, price, quantities[row] if row < len(quantities) else None)
        for row, price in enumerate(plan.metrics[:CHARTS_MAX])
    ]


async def _curve(
    calls: Calls, plan: NewPlan, price: NewMetricPrice, wanted: Decimal | None
) -> PriceCurve:
    end = max(wanted or Decimal(0), _interesting(price), Decimal(POINTS))
    steps = [(end * number / POINTS).to_integral_value() for number in range(POINTS + 1)]
    alone = NewPlan(name="", currency=plan.currency, metrics=[price])
    requests = [plans.quote_to_proto(_question(alone, [step])) for step in steps]
    answers = await questions.together(
        [calls.call(calls.invoicer.QuotePlan, request) for request in requests]
    )
    amounts = [Decimal(answer.amount) for answer in answers]
    kinds = {"PERCENTAGE": f"volume, in events of {_EVENT_AMOUNT}"}
    if price.model == "DIMENSIONAL" and price.prices:
        match = price.prices[0].match
        kinds["DIMENSIONAL"] = ", ".join(f"{name} {value}" for name, value in match.items())
    return PriceCurve(
        price.metric, kinds.get(price.model, "quantity"), priced(steps, amounts, plan.currency)
    )


def _interesting(price: NewMetricPrice) -> Decimal:
    """Up to where a price has something to show: twice its included units, somewhat beyond its
    tiers, some packages.
    """
    ends = [Decimal(price.included_units) * 2]
    if price.model == "PERCENTAGE":
        ends.append(Decimal(_EVENT_AMOUNT) * POINTS)
    limits = [Decimal(tier.up_to) for tier in price.tiers if tier.up_to]
    if limits:
        ends.append(max(limits) * Decimal("1.5"))
    if price.package_size:
        ends.append(Decimal(price.package_size) * 6)
    return max(ends) or Decimal(1_000)


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
            match = ", ".join(f"{name}={value}" for name, value in each.match.items())
            pairs.append((f"{start}.prices[{number}].match", match))
            pairs.append((f"{start}.prices[{number}].unitPrice", each.unit_price))
    return pairs


def discounts_of(plan: Plan) -> list[invoicer_pb2.Discount]:
    """The plan's discounts as messages."""
    return [
        invoicer_pb2.Discount(
            name=each.name,
            percent=each.percent or "",
            amount=each.amount or "",
            periods=each.periods or 0,
        )
        for each in plan.discounts
    ]


def _camel(member: str) -> str:
    first, *rest = member.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _quoted(plan: Plan) -> NewPlan:
    """A plan that there is, to calculate with."""
    form = Form(_renamed_matches(filled(plan)))
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
