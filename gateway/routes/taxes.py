"""/api/tax-rates and /api/customers/{id}/tax-rates"""

from litestar import Response, get, post, put
from litestar.params import FromPath, JSONBody
from usageflow.invoicer.v1 import billing_terms_pb2 as pb

from gateway.calls import ApiCalls
from gateway.preconditions import IfMatch, etag, tags_of
from gateway.query import Asked, query
from gateway.shapes.common import PageQuery
from gateway.shapes.taxes import (
    AssignedTaxRates,
    CustomerTaxRateIds,
    DefaultTaxRateIds,
    NewTaxRate,
    TaxRate,
    TaxRatePage,
    assigned_from_proto,
    rate_from_proto,
    rate_to_proto,
)


@post("/api/tax-rates")
async def create_tax_rate(calls: ApiCalls, data: JSONBody[NewTaxRate]) -> TaxRate:
    """Make a tax rate, which never changes."""
    answer = await calls.call(calls.terms.CreateTaxRate, rate_to_proto(data))
    return rate_from_proto(answer.tax_rate)


@get("/api/tax-rates", dependencies=query(PageQuery))
async def list_tax_rates(calls: ApiCalls, asked: Asked[PageQuery]) -> TaxRatePage:
    """List tax rates, newest first."""
    request = pb.ListTaxRatesRequest(page_size=asked.limit, page_token=asked.cursor)
    answer = await calls.call(calls.terms.ListTaxRates, request)
    return TaxRatePage(
        data=[rate_from_proto(rate) for rate in answer.tax_rates],
        next_cursor=answer.next_page_token or None,
    )


@get("/api/tax-rates/{tax_rate_id:str}")
async def get_tax_rate(calls: ApiCalls, tax_rate_id: FromPath[str]) -> TaxRate:
    """One tax rate."""
    request = pb.GetTaxRateRequest(tax_rate_id=tax_rate_id)
    return rate_from_proto((await calls.call(calls.terms.GetTaxRate, request)).tax_rate)


@get("/api/tax-rates/default")
async def get_default_tax_rates(calls: ApiCalls) -> Response[AssignedTaxRates]:
    """The rates of all customers without rates of their own."""
    answer = await calls.call(calls.terms.GetAssignedTaxRates, pb.GetAssignedTaxRatesRequest())
    return _shown(answer.assigned)


@put("/api/tax-rates/default")
async def set_default_tax_rates(
    calls: ApiCalls, data: JSONBody[DefaultTaxRateIds], if_match: IfMatch = None
) -> Response[AssignedTaxRates]:
    """Set the rates of all customers without rates of their own, for invoices from now on."""
    request = pb.AssignTaxRatesRequest(tax_rate_ids=data.tax_rate_ids, if_match=tags_of(if_match))
    return _shown((await calls.call(calls.terms.AssignTaxRates, request)).assigned)


@get("/api/customers/{customer_id:str}/tax-rates")
async def get_customer_tax_rates(
    calls: ApiCalls, customer_id: FromPath[str]
) -> Response[AssignedTaxRates]:
    """The rates that a customer's invoices have."""
    request = pb.GetAssignedTaxRatesRequest(customer_id=customer_id)
    return _shown((await calls.call(calls.terms.GetAssignedTaxRates, request)).assigned)


@put("/api/customers/{customer_id:str}/tax-rates")
async def set_customer_tax_rates(
    calls: ApiCalls,
    customer_id: FromPath[str],
    data: JSONBody[CustomerTaxRateIds],
    if_match: IfMatch = None,
) -> Response[AssignedTaxRates]:
    """Set the rates that a customer's invoices have from now on; null: those of all customers."""
    request = pb.AssignTaxRatesRequest(
        customer_id=customer_id,
        tax_rate_ids=data.tax_rate_ids or [],
        inherit=data.tax_rate_ids is None,
        if_match=tags_of(if_match),
    )
    return _shown((await calls.call(calls.terms.AssignTaxRates, request)).assigned)


def _shown(assigned: pb.AssignedTaxRates) -> Response[AssignedTaxRates]:
    return Response(assigned_from_proto(assigned), headers=etag(assigned))


HANDLERS = [
    create_tax_rate,
    list_tax_rates,
    get_tax_rate,
    get_default_tax_rates,
    set_default_tax_rates,
    get_customer_tax_rates,
    set_customer_tax_rates,
]
