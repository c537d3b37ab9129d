"""/dashboard/customers"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.aggregator.v1 import quotas_pb2
from usageflow.invoicer.v1 import (
    billing_terms_pb2,
    budgets_pb2,
    credits_pb2,
    invoicer_pb2,
)

from gateway.calls import Calls
from gateway.dashboard import questions
from gateway.dashboard.charts.scale import percent
from gateway.dashboard.forms import ETAG, Form, problem
from gateway.dashboard.visit import Visit, Visited
from gateway.shapes import (
    budgets,
    credit_notes,
    customers,
    invoices,
    prepaid,
    quotas,
    subscriptions,
)
from gateway.shapes.budgets import NewBudget
from gateway.shapes.customers import Customer, CustomerChange, NewCustomer
from gateway.shapes.metrics import Metric
from gateway.shapes.quotas import NewQuota, QuotaState
from gateway.shapes.subscriptions import Subscription
from gateway.shapes.usage import UsageQuery
from services.kit.errors import (
    DomainError,
    InvalidArgumentError,
    PreconditionError,
    StaleError,
)

PAGE_ROWS: Final = 50
LATEST: Final = 10
METRICS_MAX: Final = 50
# Of a quota's metric they are known: only such can have one.
_QUOTA_AGGREGATIONS: Final = ("SUM", "COUNT")
QUOTA_PERIODS: Final = (
    ("MONTH", "A month"),
    ("WEEK", "A week"),
    ("DAY", "A day"),
    ("HOUR", "An hour"),
    ("TOTAL", "In all"),
)
ENFORCEMENTS: Final = (
    ("HARD", "Hard: no more than that"),
    ("SOFT", "Soft: only told when reached"),
)


@dataclass(frozen=True, slots=True)
class MetricUse:
    """What a customer used of a metric this month."""

    metric: Metric
    value: str


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """A quota that applies to a customer; `share` of its limit is used, in percent."""

    metric: str
    state: QuotaState
    share: Decimal | None


@get("/dashboard/customers", include_in_schema=False)
async def list_customers(visit: Visited) -> Response[bytes]:
    """Whom the organization bills."""
    wanted = visit.request.query_params.get("id", "").strip()
    if wanted:
        return visit.go(_path(wanted))
    request = invoicer_pb2.ListCustomersRequest(
        page_size=PAGE_ROWS, page_token=visit.request.query_params.get("cursor", "")
    )
    answer = await visit.calls.call(visit.calls.invoicer.ListCustomers, request)
    return visit.page(
        "customers.html",
        customers=[customers.from_proto(each) for each in answer.customers],
        cursor=answer.next_page_token,
    )


@get("/dashboard/customers/new", include_in_schema=False)
async def new_customer(visit: Visited) -> Response[bytes]:
    """The form for one more."""
    visit.require("billing")
    return visit.page("customer_edit.html", customer=None)


@post("/dashboard/customers/new", include_in_schema=False)
async def create_customer(visit: Visited) -> Response[bytes]:
    """Make a customer, or tell more of one that is known by events only."""
    try:
        customer = visit.form.read(NewCustomer)
        request = customers.to_proto(customer)
        request.if_match.extend(await _still_unknown(visit, customer.id))
        await visit.calls.call(visit.calls.invoicer.PutCustomer, request)
    except DomainError as error:
        visit.form.refuse(error)
        return visit.page("customer_edit.html", 400, customer=None)
    return visit.go(_path(customer.id), "created")


@get("/dashboard/customers/{customer_id:str}", include_in_schema=False)
async def show_customer(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """Usage, subscriptions, invoices, credits, quotas."""
    return await _show(visit, customer_id)


@get("/dashboard/customers/{customer_id:str}/edit", include_in_schema=False)
async def edit_customer(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """The form with what is known."""
    visit.require("billing")
    customer, form = await _filled(visit, customer_id)
    return visit.page("customer_edit.html", customer=customer, form=form)


async def _still_unknown(visit: Visit, customer_id: str) -> list[str]:
    """The tag of a customer of whom nothing is known but the id; [] when there is none.
    InvalidArgumentError: somebody has told more of them.
    """
    known = await questions.found(_message(visit.calls, customer_id))
    if known is None:
        return []
    customer = customers.from_proto(known)
    if customer.name or customer.email or customer.timezone or customer.currency:
        raise problem("id", "is a customer already: edit that one")
    return [known.etag]


async def _filled(visit: Visit, customer_id: str) -> tuple[Customer, Form]:
    """The customer, and the form with what is known."""
    message = await _message(visit.calls, customer_id)
    customer = customers.from_proto(message)
    form = Form(
        [
            ("name", customer.name),
            ("email", customer.email or ""),
            ("timezone", customer.timezone or ""),
            ("currency", customer.currency or ""),
            (ETAG, message.etag),
        ]
    )
    return customer, form


@post("/dashboard/customers/{customer_id:str}/edit", include_in_schema=False)
async def change_customer(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """Change what the form shows; what it does not show stays."""
    customer = await _customer(visit.calls, customer_id)
    try:
        change = CustomerChange(
            name=visit.form.get("name", ""),
            email=visit.form.get("email", ""),
            timezone=visit.form.get("timezone", ""),
            currency=visit.form.get("currency", ""),
        )
        request = customers.change_to_proto(customer_id, change)
        request.if_match.extend(visit.form.if_match)
        await visit.calls.call(visit.calls.invoicer.PutCustomer, request)
    except StaleError:
        customer, now = await _filled(visit, customer_id)
        form = visit.form.outdated(now)
        return visit.page("customer_edit.html", 412, customer=customer, form=form)
    except DomainError as error:
        visit.form.refuse(error)
        return visit.page("customer_edit.html", 400, customer=customer)
    return visit.go(_path(customer_id), "saved")


@post("/dashboard/customers/{customer_id:str}/quotas", include_in_schema=False)
async def set_quota(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """Limit what the customer may use."""
    try:
        request = quotas.to_proto(visit.form.read(NewQuota, customerId=customer_id))
        present = [
            each.etag
            for each in await _own_quotas(visit.calls, customer_id)
            if (each.metric, each.period) == (request.quota.metric, request.quota.period)
        ]
        request.if_match.extend(visit.form.seen(present[0] if present else ""))
        await visit.calls.call(visit.calls.quotas.SetQuota, request)
    except DomainError as error:
        return await _show(visit, customer_id, visit.form.refuse(error))
    return visit.go(_path(customer_id), "saved")


@post(
    "/dashboard/customers/{customer_id:str}/quotas/{quota_id:str}/delete", include_in_schema=False
)
async def delete_quota(
    visit: Visited, customer_id: FromPath[str], quota_id: FromPath[str]
) -> Response[bytes]:
    """Take a limit away."""
    request = quotas_pb2.DeleteQuotaRequest(id=quota_id, if_match=visit.form.if_match)
    asked = visit.calls.call(visit.calls.quotas.DeleteQuota, request)
    return await _deleted(visit, customer_id, asked)


@post("/dashboard/customers/{customer_id:str}/budgets", include_in_schema=False)
async def set_budget(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """Watch what a period of one of the customer's subscriptions comes to."""
    try:
        budget, subscription_id = visit.form.read(NewBudget), visit.form.get("_subscriptionId", "")
        request = budgets.to_proto(subscription_id, budget)
        present = await _budget(visit.calls, subscription_id)
        request.if_match.extend(visit.form.seen(present.etag if present else ""))
        await visit.calls.call(visit.calls.budgets.SetBudget, request)
    except DomainError as error:
        return await _show(visit, customer_id, visit.form.refuse(error))
    return visit.go(_path(customer_id), "saved")


@post(
    "/dashboard/customers/{customer_id:str}/budgets/{subscription_id:str}/remove",
    include_in_schema=False,
)
async def remove_budget(
    visit: Visited, customer_id: FromPath[str], subscription_id: FromPath[str]
) -> Response[bytes]:
    """Watch it no more."""
    request = budgets_pb2.RemoveBudgetRequest(
        subscription_id=subscription_id, if_match=visit.form.if_match
    )
    asked = visit.calls.call(visit.calls.budgets.RemoveBudget, request)
    return await _deleted(visit, customer_id, asked)


async def _deleted(visit: Visit, customer_id: str, asked: Awaitable[Any]) -> Response[bytes]:
    """Do what is asked, and say so, or that somebody has changed meanwhile what was to go."""
    try:
        await asked
    except StaleError as error:
        return await _show(visit, customer_id, visit.form.refuse(error))
    return visit.go(_path(customer_id), "deleted")


async def _show(visit: Visit, customer_id: str, status: int = 200) -> Response[bytes]:
    calls = visit.calls
    customer = await _customer(calls, customer_id)
    metrics = await questions.all_metrics(calls)
    uses, limits, own = await asyncio.gather(
        questions.together([_use(visit, each, customer_id) for each in metrics[:METRICS_MAX]]),
        _limits(calls, metrics, customer_id),
        _own_quotas(calls, customer_id),
    )
    plans, balances, subscribed, billed, credited = await asyncio.gather(
        questions.all_plans(calls),
        calls.call(
            calls.prepaid.ListCreditBalances,
            credits_pb2.ListCreditBalancesRequest(customer_id=customer_id),
        ),
        calls.call(
            calls.invoicer.ListSubscriptions,
            invoicer_pb2.ListSubscriptionsRequest(customer_id=customer_id, page_size=LATEST),
        ),
        calls.call(
            calls.invoicer.ListInvoices,
            invoicer_pb2.ListInvoicesRequest(customer_id=customer_id, page_size=LATEST),
        ),
        calls.call(
            calls.terms.ListCreditNotes,
            billing_terms_pb2.ListCreditNotesRequest(customer_id=customer_id, page_size=LATEST),
        ),
    )
    names = {plan.id: plan.name for plan in plans}
    live = [
        each
        for each in map(subscriptions.from_proto, subscribed.subscriptions)
        if each.current_period_end
    ]
    watched = await _budgets(calls, live)
    return visit.page(
        "customer.html",
        status,
        customer=customer,
        uses=[each for each in uses if each.value != "0"],
        metrics_left_out=max(0, len(metrics) - METRICS_MAX),
        limits=limits,
        quota_etags={each.id: each.etag for each in own},
        quota_metrics=[each for each in metrics if each.aggregation in _QUOTA_AGGREGATIONS],
        quota_periods=QUOTA_PERIODS,
        enforcements=ENFORCEMENTS,
        live_plans={each.id: names.get(each.plan_id, each.plan_id) for each in live},
        budgets=[budgets.from_proto(each) for each in watched],
        budget_etags={each.subscription_id: each.etag for each in watched},
        plan_names=names,
        subscriptions=[subscriptions.from_proto(each) for each in subscribed.subscriptions],
        invoices=[invoices.from_proto(each) for each in billed.invoices],
        balances=[prepaid.balance_from_proto(each) for each in balances.balances],
        credit_notes=[credit_notes.from_proto(each) for each in credited.credit_notes],
    )


async def _use(visit: Visit, metric: Metric, customer_id: str) -> MetricUse:
    asked = UsageQuery(metric=metric.key, customer_id=customer_id, from_=visit.month)
    usage = await questions.ask_usage(visit.calls, asked)
    return MetricUse(metric, usage.data[0].value if usage.data else "0")


async def _budgets(calls: Calls, live: list[Subscription]) -> list[budgets_pb2.Budget]:
    """What periods of the subscriptions are expected to cost, where somebody has said so."""
    found = await questions.together([_budget(calls, each.id) for each in live])
    return [budget for budget in found if budget is not None]


async def _budget(calls: Calls, subscription_id: str) -> budgets_pb2.Budget | None:
    request = budgets_pb2.GetBudgetRequest(subscription_id=subscription_id)
    found = await questions.found(calls.call(calls.budgets.GetBudget, request))
    return found.budget if found else None


async def _own_quotas(calls: Calls, customer_id: str) -> Sequence[quotas_pb2.Quota]:
    """Those that are this customer's alone."""
    request = quotas_pb2.ListQuotasRequest(customer_id=customer_id)
    return (await calls.call(calls.quotas.ListQuotas, request)).quotas


async def _limits(calls: Calls, metrics: list[Metric], customer_id: str) -> list[QuotaUse]:
    """The quotas that apply to the customer, their own and those of all."""
    listed = await calls.call(calls.quotas.ListQuotas, quotas_pb2.ListQuotasRequest())
    limited = {each.metric for each in listed.quotas}
    asked = [metric for metric in metrics if metric.key in limited]
    found = await questions.together([_check(calls, each, customer_id) for each in asked])
    return [use for uses in found for use in uses]


async def _check(calls: Calls, metric: Metric, customer_id: str) -> list[QuotaUse]:
    request = quotas_pb2.CheckQuotaRequest(metric=metric.key, customer_id=customer_id)
    try:
        check = quotas.check_from_proto(await calls.call(calls.quotas.CheckQuota, request))
    except (InvalidArgumentError, PreconditionError):
        return []
    return [
        QuotaUse(
            metric.key,
            state,
            None if state.limit is None else percent(Decimal(state.used), Decimal(state.limit)),
        )
        for state in check.quotas
    ]


async def _customer(calls: Calls, customer_id: str) -> Customer:
    return customers.from_proto(await _message(calls, customer_id))


async def _message(calls: Calls, customer_id: str) -> invoicer_pb2.Customer:
    request = invoicer_pb2.GetCustomerRequest(customer_id=customer_id)
    return (await calls.call(calls.invoicer.GetCustomer, request)).customer


def _path(customer_id: str) -> str:
    return f"/dashboard/customers/{quote(customer_id, safe='')}"


HANDLERS = [
    list_customers,
    new_customer,
    create_customer,
    show_customer,
    edit_customer,
    change_customer,
    set_quota,
    delete_quota,
    set_budget,
    remove_budget,
]
