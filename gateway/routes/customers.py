"""/api/customers"""

from litestar import Response, get, patch, post
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, JSONBody
from usageflow.invoicer.v1 import invoicer_pb2 as pb

from gateway.calls import ApiCalls
from gateway.preconditions import IfMatch, etag, tags_of
from gateway.query import Asked, query
from gateway.shapes.common import PageQuery
from gateway.shapes.customers import (
    Customer,
    CustomerChange,
    CustomerPage,
    NewCustomer,
    change_to_proto,
    from_proto,
    to_proto,
)
from services.kit.errors import StaleError
from services.kit.etag import ANY


@post("/api/customers", responses={200: ResponseSpec(Customer, generate_examples=False)})
async def put_customer(
    calls: ApiCalls, data: JSONBody[NewCustomer], if_match: IfMatch = None
) -> Response[Customer]:
    """Make a customer, or set the one with this id in full: 201 when it came into being, else 200.

    Customers also come into being with their first event.
    """
    request = to_proto(data)
    request.if_match.extend(tags_of(if_match))
    answer = await calls.call(calls.invoicer.PutCustomer, request)
    return _shown(answer.customer, 201 if answer.created else 200)


@get("/api/customers", dependencies=query(PageQuery))
async def list_customers(calls: ApiCalls, asked: Asked[PageQuery]) -> CustomerPage:
    """List the customers, newest first."""
    request = pb.ListCustomersRequest(page_size=asked.limit, page_token=asked.cursor)
    answer = await calls.call(calls.invoicer.ListCustomers, request)
    return CustomerPage(
        data=[from_proto(customer) for customer in answer.customers],
        next_cursor=answer.next_page_token or None,
    )


@get("/api/customers/{customer_id:str}")
async def get_customer(calls: ApiCalls, customer_id: FromPath[str]) -> Response[Customer]:
    """One customer."""
    request = pb.GetCustomerRequest(customer_id=customer_id)
    return _shown((await calls.call(calls.invoicer.GetCustomer, request)).customer)


@patch("/api/customers/{customer_id:str}")
async def change_customer(
    calls: ApiCalls,
    customer_id: FromPath[str],
    data: JSONBody[CustomerChange],
    if_match: IfMatch = None,
) -> Response[Customer]:
    """Change some fields of a customer; what is left out stays."""
    tags = tags_of(if_match)
    # PutCustomer would make an unknown customer; customers are never deleted, so one that is
    # found here is still there below.
    existing = pb.GetCustomerRequest(customer_id=customer_id)
    found = (await calls.call(calls.invoicer.GetCustomer, existing)).customer
    request = change_to_proto(customer_id, data)
    if not request.update_fields:
        if tags and not {ANY, found.etag} & set(tags):
            raise StaleError("It has changed since you read it")
        return _shown(found)
    request.if_match.extend(tags)
    return _shown((await calls.call(calls.invoicer.PutCustomer, request)).customer)


def _shown(customer: pb.Customer, status: int = 200) -> Response[Customer]:
    return Response(from_proto(customer), status_code=status, headers=etag(customer))


HANDLERS = [put_customer, list_customers, get_customer, change_customer]
