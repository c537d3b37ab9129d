"""/api/customers/{id}/credits"""

from litestar import get, post, put
from litestar.params import FromPath, JSONBody
from usageflow.invoicer.v1 import credits_pb2 as pb

from gateway.calls import ApiCalls
from gateway.query import Asked, query
from gateway.shapes.common import PageQuery
from gateway.shapes.prepaid import (
    CreditBalance,
    CreditBalances,
    CreditEntriesQuery,
    CreditEntryPage,
    CreditGrant,
    CreditGrantPage,
    CreditGrantVoid,
    LowCreditBalance,
    NewCreditDebit,
    NewCreditGrant,
    balance_from_proto,
    entry_from_proto,
    grant_from_proto,
    grant_to_proto,
)

NO_REASON = CreditGrantVoid()


@get("/api/customers/{customer_id:str}/credits")
async def list_credit_balances(calls: ApiCalls, customer_id: FromPath[str]) -> CreditBalances:
    """What credit a customer has, by currency; what expires leaves it within seconds."""
    request = pb.ListCreditBalancesRequest(customer_id=customer_id)
    answer = await calls.call(calls.prepaid.ListCreditBalances, request)
    return CreditBalances(data=[balance_from_proto(each) for each in answer.balances])


@post("/api/customers/{customer_id:str}/credits/grants")
async def grant_credits(
    calls: ApiCalls, customer_id: FromPath[str], data: JSONBody[NewCreditGrant]
) -> CreditGrant:
    """Give a customer credit, which pays invoices, taxes included, when they are finalized.

    The grant with the lowest priority first, then the one that expires first, then the oldest.
    """
    answer = await calls.call(calls.prepaid.GrantCredits, grant_to_proto(customer_id, data))
    return grant_from_proto(answer.grant)


@get("/api/customers/{customer_id:str}/credits/grants", dependencies=query(PageQuery))
async def list_credit_grants(
    calls: ApiCalls, customer_id: FromPath[str], asked: Asked[PageQuery]
) -> CreditGrantPage:
    """List a customer's grants, newest first, used up ones too."""
    request = pb.ListCreditGrantsRequest(
        customer_id=customer_id, page_size=asked.limit, page_token=asked.cursor
    )
    answer = await calls.call(calls.prepaid.ListCreditGrants, request)
    return CreditGrantPage(
        data=[grant_from_proto(each) for each in answer.grants],
        next_cursor=answer.next_page_token or None,
    )


@post("/api/customers/{customer_id:str}/credits/grants/{grant_id:str}/void", status_code=200)
async def void_credit_grant(
    calls: ApiCalls,
    customer_id: FromPath[str],
    grant_id: FromPath[str],
    data: JSONBody[CreditGrantVoid] = NO_REASON,
) -> CreditGrant:
    """Take back what is left of a grant; what it has paid stays paid."""
    request = pb.VoidCreditGrantRequest(
        customer_id=customer_id, grant_id=grant_id, reason=data.reason
    )
    return grant_from_proto((await calls.call(calls.prepaid.VoidCreditGrant, request)).grant)


@post("/api/customers/{customer_id:str}/credits/debits", status_code=200)
async def debit_credits(
    calls: ApiCalls, customer_id: FromPath[str], data: JSONBody[NewCreditDebit]
) -> CreditBalance:
    """Take credit off by hand, as an invoice would; 409 insufficient_credits: nothing was."""
    request = pb.DebitCreditsRequest(
        customer_id=customer_id,
        currency=data.currency or "",
        amount=data.amount,
        reason=data.reason,
    )
    return balance_from_proto((await calls.call(calls.prepaid.DebitCredits, request)).balance)


@put("/api/customers/{customer_id:str}/credits/low-balance")
async def set_low_credit_balance(
    calls: ApiCalls, customer_id: FromPath[str], data: JSONBody[LowCreditBalance]
) -> CreditBalance:
    """Set at which balance `credits.low_balance` goes out, once each time it comes down to it."""
    request = pb.SetLowCreditBalanceRequest(
        customer_id=customer_id, currency=data.currency or "", low_balance=data.low_balance or ""
    )
    answer = await calls.call(calls.prepaid.SetLowCreditBalance, request)
    return balance_from_proto(answer.balance)


@get("/api/customers/{customer_id:str}/credits/ledger", dependencies=query(CreditEntriesQuery))
async def list_credit_entries(
    calls: ApiCalls, customer_id: FromPath[str], asked: Asked[CreditEntriesQuery]
) -> CreditEntryPage:
    """All that happened to a customer's credit in one currency, newest first."""
    request = pb.ListCreditEntriesRequest(
        customer_id=customer_id,
        currency=asked.currency,
        page_size=asked.limit,
        page_token=asked.cursor,
    )
    answer = await calls.call(calls.prepaid.ListCreditEntries, request)
    return CreditEntryPage(
        data=[entry_from_proto(each) for each in answer.entries],
        next_cursor=answer.next_page_token or None,
    )


HANDLERS = [
    list_credit_balances,
    grant_credits,
    list_credit_grants,
    void_credit_grant,
    debit_credits,
    set_low_credit_balance,
    list_credit_entries,
]
