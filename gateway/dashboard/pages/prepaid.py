"""/dashboard/customers/{id}/credits"""

import asyncio
from decimal import Decimal
from typing import Final
from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.invoicer.v1 import credits_pb2, invoicer_pb2

from gateway.dashboard.forms import local_time
from gateway.dashboard.visit import Visit, Visited, new_key
from gateway.shapes import customers, prepaid
from gateway.shapes.prepaid import (
    CreditGrantVoid,
    LowCreditBalance,
    NewCreditDebit,
    NewCreditGrant,
)
from services.kit.errors import DomainError

GRANTS_SHOWN: Final = 50
PAGE_ROWS: Final = 50
# What an entry of the ledger did.
ENTRIES: Final = {
    "GRANT": "Granted",
    "APPLY": "Paid an invoice",
    "RETURN": "Came back from an invoice",
    "EXPIRE": "Expired",
    "VOID": "Voided",
    "DEBIT": "Taken off by hand",
}
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
            at = local_time(visit.form["expiresAt"], "expiresAt", visit.zone)
            more["expiresAt"] = at.isoformat()
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
    try:
        void = visit.form.read(CreditGrantVoid)
        request = credits_pb2.VoidCreditGrantRequest(
            customer_id=customer_id, grant_id=grant_id, reason=void.reason
        )
        await visit.calls.call(visit.calls.prepaid.VoidCreditGrant, request)
    except DomainError as error:
        visit.form.refuse(error)
        return await _show(visit, customer_id, 400)
    return visit.go(_path(customer_id), "grant-voided")


@post("/dashboard/customers/{customer_id:str}/credits/debits", include_in_schema=False)
async def debit_credits(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """Take credit off by hand."""
    try:
        debit = visit.form.part("debit").read(NewCreditDebit)
        request = credits_pb2.DebitCreditsRequest(
            customer_id=customer_id,
            currency=debit.currency or "",
            amount=debit.amount,
            reason=debit.reason,
        )
        calls = visit.calls.once(visit.form.get("_key", ""))
        await calls.call(calls.prepaid.DebitCredits, request)
    except DomainError as error:
        visit.form.refuse(error, "debit")
        return await _show(visit, customer_id, 400)
    return visit.go(_path(customer_id), "debited")


@post("/dashboard/customers/{customer_id:str}/credits/low-balance", include_in_schema=False)
async def set_low_balance(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """Set at which balance the organization is told."""
    try:
        form = visit.form.part("low")
        more = {} if form.get("lowBalance") else {"lowBalance": None}
        low = form.read(LowCreditBalance, **more)
        request = credits_pb2.SetLowCreditBalanceRequest(
            customer_id=customer_id, currency=low.currency or "", low_balance=low.low_balance or ""
        )
        await visit.calls.call(visit.calls.prepaid.SetLowCreditBalance, request)
    except DomainError as error:
        visit.form.refuse(error, "low")
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
        entry_names=ENTRIES,
        new_key=new_key(),
    )


def _path(customer_id: str) -> str:
    return f"/dashboard/customers/{quote(customer_id, safe='')}/credits"


HANDLERS = [show_credits, grant_credits, void_grant, debit_credits, set_low_balance]
