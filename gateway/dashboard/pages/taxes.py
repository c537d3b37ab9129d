"""/dashboard/taxes, and the rates of one customer"""

import asyncio
from typing import Final
from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.invoicer.v1 import billing_terms_pb2

from gateway.dashboard import questions
from gateway.dashboard.visit import Visit, Visited
from gateway.shapes import taxes
from gateway.shapes.taxes import NewTaxRate, TaxRate
from services.kit.errors import DomainError
from services.kit.pages import PAGE_SIZE_MAX

_RATES: Final = "_rates"
_OWN: Final = "_own"


@get("/dashboard/taxes", include_in_schema=False)
async def show_taxes(visit: Visited) -> Response[bytes]:
    """The rates, and which of them all customers have."""
    return await _show(visit)


@post("/dashboard/taxes", include_in_schema=False)
async def create_rate(visit: Visited) -> Response[bytes]:
    """Make a rate, which never changes."""
    try:
        request = taxes.rate_to_proto(visit.form.read(NewTaxRate))
        await visit.calls.call(visit.calls.terms.CreateTaxRate, request)
    except DomainError as error:
        visit.form.refuse(error)
        return await _show(visit, 400)
    return visit.go("/dashboard/taxes", "created")


@post("/dashboard/taxes/default", include_in_schema=False)
async def set_default(visit: Visited) -> Response[bytes]:
    """Set the rates of all customers without rates of their own."""
    request = billing_terms_pb2.AssignTaxRatesRequest(
        tax_rate_ids=visit.form.all(_RATES), if_match=visit.form.if_match
    )
    try:
        await visit.calls.call(visit.calls.terms.AssignTaxRates, request)
    except DomainError as error:
        return await _show(visit, visit.form.refuse(error))
    return visit.go("/dashboard/taxes", "saved")


@get("/dashboard/customers/{customer_id:str}/taxes", include_in_schema=False)
async def show_customer_taxes(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """The rates of one customer."""
    return await _show_customer(visit, customer_id)


@post("/dashboard/customers/{customer_id:str}/taxes", include_in_schema=False)
async def set_customer_taxes(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """Set them, for invoices from now on, or let the customer have those of all."""
    own = visit.form.get(_OWN) == "true"
    request = billing_terms_pb2.AssignTaxRatesRequest(
        customer_id=customer_id,
        tax_rate_ids=visit.form.all(_RATES) if own else [],
        inherit=not own,
        if_match=visit.form.if_match,
    )
    try:
        await visit.calls.call(visit.calls.terms.AssignTaxRates, request)
    except DomainError as error:
        return await _show_customer(visit, customer_id, visit.form.refuse(error))
    return visit.go(f"/dashboard/customers/{quote(customer_id, safe='')}/taxes", "saved")


async def _show(visit: Visit, status: int = 200) -> Response[bytes]:
    calls = visit.calls
    rates, default = await asyncio.gather(
        _rates(visit),
        calls.call(calls.terms.GetAssignedTaxRates, billing_terms_pb2.GetAssignedTaxRatesRequest()),
    )
    return visit.page(
        "taxes.html",
        status,
        rates=rates,
        assigned={rate.id for rate in default.assigned.rates},
        etag=default.assigned.etag,
    )


async def _show_customer(visit: Visit, customer_id: str, status: int = 200) -> Response[bytes]:
    request = billing_terms_pb2.GetAssignedTaxRatesRequest(customer_id=customer_id)
    rates, answer = await asyncio.gather(
        _rates(visit), visit.calls.call(visit.calls.terms.GetAssignedTaxRates, request)
    )
    return visit.page(
        "customer_taxes.html",
        status,
        customer_id=customer_id,
        rates=rates,
        inherited=answer.assigned.inherited,
        assigned={rate.id for rate in answer.assigned.rates},
        etag=answer.assigned.etag,
    )


async def _rates(visit: Visit) -> list[TaxRate]:
    async def page(token: str) -> tuple[list[TaxRate], str]:
        request = billing_terms_pb2.ListTaxRatesRequest(page_size=PAGE_SIZE_MAX, page_token=token)
        answer = await visit.calls.call(visit.calls.terms.ListTaxRates, request)
        return [taxes.rate_from_proto(each) for each in answer.tax_rates], answer.next_page_token

    return await questions.every(page)


HANDLERS = [show_taxes, create_rate, set_default, show_customer_taxes, set_customer_taxes]
