"""/dashboard/customers/{id}/credits"""

import asyncio
from datetime import datetime
from decimal import Decimal
from typing import Final
from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.invoicer.v1 import credits_pb2, invoicer_pb2

from gateway.dashboard.forms import problem
from gateway.dashboard.visit import Visit, Visited, new_key
from gateway.shapes import customers, prepaid
from gateway.shapes.prepaid import LowCreditBalance, NewCreditGrant
from services.kit.errors import DomainError

GRANTS_SHOWN: Final = 50
PAGE_ROWS: Final = 50
KINDS: Final = (("PAID", "Paid for"), ("PROMOTIONAL", "Promotional"))


@get("/dashboard/customers/{customer_id:str}/credits", include_in_schema=False)
async def show_credits(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """Balances, grants and the ledger."""
    return await _show(visit, customer_id)


@post("/dashboard/customers/{customer_id:str}/credits/grants", include_in_schema=False)
async def grant_credits(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """Give the customer credit."""
    try:
        more = {}
        if visit.form.get("expiresAt"):
            more["expiresAt"] = _local(visit.form["expiresAt"], visit).isoformat()
        request = prepaid.grant_to_proto(customer_id, visit.form.read(NewCreditGrant, **more))
        calls = visit.calls.once(visit.form.get("_key", ""))
        await calls.call(calls.prepaid.GrantCredits, request)
    except DomainError as error:
        visit.form.refuse(error)
        return await _show(visit, customer_id, 400)
    return visit.go(_path(customer_id), "granted")


@post(
    "/dashboard/customers/{customer_id:str}/credits/grants/{grant_id:str}/void",
    include_in_schema=False,
)
async def void_grant(
    visit: Visited, customer_id: FromPath[str], grant_id: FromPath[str]
) -> Response[bytes]:
    """Take back what is left of a grant."""
    request = credits_pb2.VoidCreditGrantRequest(customer_id=customer_id, grant_id=grant_id)
    await visit.calls.call(visit.calls.prepaid.VoidCreditGrant, request)
    return visit.go(_path(customer_id), "saved")


@post("/dashboard/customers/{customer_id:str}/credits/low-balance", include_in_schema=False)
async def set_low_balance(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """Set at which balance the organization is told."""
    try:
        more = {} if visit.form.get("lowBalance") else {"lowBalance": None}
        low = visit.form.read(LowCreditBalance, **more)
        request = credits_pb2.SetLowCreditBalanceRequest(
            customer_id=customer_id, currency=low.currency or "", low_balance=low.low_balance or ""
        )
        await visit.calls.call(visit.calls.prepaid.SetLowCreditBalance, request)
    except DomainError as error:
        visit.form.refuse(error)
        return await _show(visit, customer_id, 400)
    return visit.go(_path(customer_id), "saved")


async def _show(visit: Visit, customer_id: str, status: int = 200) -> Response[bytes]:
    calls, query = visit.calls, visit.request.query_params
    found, balances, grants = await asyncio.gather(
        calls.call(
            calls.invoicer.GetCustomer, invoicer_pb2.GetCustomerRequest(customer_id=customer_id)
        ),
        calls.call(
            calls.prepaid.ListCreditBalances,
            credits_pb2.ListCreditBalancesRequest(customer_id=customer_id),
        ),
        calls.call(
            calls.prepaid.ListCreditGrants,
            credits_pb2.ListCreditGrantsRequest(customer_id=customer_id, page_size=GRANTS_SHOWN),
        ),
    )
    there = [prepaid.balance_from_proto(each) for each in balances.balances]
    currencies = [each.currency for each in there]
    chosen = query.get("currency", "")
    if chosen not in currencies:
        chosen = currencies[0] if currencies else ""
    entries = credits_pb2.ListCreditEntriesResponse()
    if chosen:
        request = credits_pb2.ListCreditEntriesRequest(
            customer_id=customer_id,
            currency=chosen,
            page_size=PAGE_ROWS,
            page_token=query.get("cursor", ""),
        )
        entries = await calls.call(calls.prepaid.ListCreditEntries, request)
    granted = [prepaid.grant_from_proto(each) for each in grants.grants]
    return visit.page(
        "customer_credits.html",
        status,
        customer=customers.from_proto(found.customer),
        balances=there,
        grants=granted,
        voidable={each.id for each in granted if Decimal(each.balance) > 0},
        more_grants=bool(grants.next_page_token),
        chosen=chosen,
        entries=[prepaid.entry_from_proto(each) for each in entries.entries],
        cursor=entries.next_page_token,
        kinds=KINDS,
        new_key=new_key(),
    )


def _local(text: str, visit: Visit) -> datetime:
    """The instant that a field for local date and time says."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M").replace(tzinfo=visit.zone)
    except ValueError:
        raise problem("expiresAt", "must be a date and a time of day") from None


def _path(customer_id: str) -> str:
    return f"/dashboard/customers/{quote(customer_id, safe='')}/credits"


HANDLERS = [show_credits, grant_credits, void_grant, set_low_balance]
