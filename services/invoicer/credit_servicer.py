"""Translates between proto and domain for prepaid credits; decides nothing but who may call."""

from usageflow.invoicer.v1 import credits_pb2 as pb
from usageflow.invoicer.v1.credits_pb2_grpc import CreditsServiceServicer

from services.invoicer import messages
from services.invoicer.credit_checks import DebitInput, GrantInput
from services.invoicer.credits import PRIORITY_DEFAULT, CreditEntry, CreditGrant, Wallet
from services.invoicer.service.credits import Credits
from services.invoicer.service.paging import Page
from services.kit.auth import require_scope
from services.kit.money import format_money

_GRANT_KIND = "CREDIT_GRANT_KIND_"
_ENTRY_KIND = "CREDIT_ENTRY_KIND_"


class CreditsServicer(CreditsServiceServicer):
    """What callers with an API key may do, in their own organization and mode."""

    def __init__(self, use_cases: Credits) -> None:
        self._credits = use_cases

    async def GrantCredits(
        self, request: pb.GrantCreditsRequest, context: object
    ) -> pb.GrantCreditsResponse:
        """Give a customer credit."""
        caller = require_scope("admin")
        granted = await self._credits.grant_credits(
            caller.tenant, _grant_input(request), by_key=caller.actor_id
        )
        return pb.GrantCreditsResponse(grant=_grant(granted))

    async def ListCreditGrants(
        self, request: pb.ListCreditGrantsRequest, context: object
    ) -> pb.ListCreditGrantsResponse:
        """A page of a customer's grants."""
        tenant = require_scope("read").tenant
        page = Page(request.page_size, request.page_token)
        found, token = await self._credits.list_grants(tenant, request.customer_id, page)
        return pb.ListCreditGrantsResponse(
            grants=[_grant(each) for each in found], next_page_token=token
        )

    async def VoidCreditGrant(
        self, request: pb.VoidCreditGrantRequest, context: object
    ) -> pb.VoidCreditGrantResponse:
        """Take back what is left of a grant."""
        caller = require_scope("admin")
        found = await self._credits.void_grant(
            caller.tenant,
            request.customer_id,
            request.grant_id,
            request.reason,
            by_key=caller.actor_id,
        )
        return pb.VoidCreditGrantResponse(grant=_grant(found))

    async def DebitCredits(
        self, request: pb.DebitCreditsRequest, context: object
    ) -> pb.DebitCreditsResponse:
        """Take credit off by hand."""
        caller = require_scope("admin")
        given = DebitInput(request.customer_id, request.amount, request.reason, request.currency)
        wallet = await self._credits.debit_credits(caller.tenant, given, by_key=caller.actor_id)
        return pb.DebitCreditsResponse(balance=_balance(wallet))

    async def ListCreditBalances(
        self, request: pb.ListCreditBalancesRequest, context: object
    ) -> pb.ListCreditBalancesResponse:
        """What credit a customer has."""
        tenant = require_scope("read").tenant
        found = await self._credits.list_balances(tenant, request.customer_id)
        return pb.ListCreditBalancesResponse(balances=[_balance(each) for each in found])

    async def SetLowCreditBalance(
        self, request: pb.SetLowCreditBalanceRequest, context: object
    ) -> pb.SetLowCreditBalanceResponse:
        """Set at which balance somebody is told."""
        caller = require_scope("admin")
        wallet = await self._credits.set_low_balance(
            caller.tenant,
            request.customer_id,
            request.currency,
            request.low_balance,
            by_key=caller.actor_id,
        )
        return pb.SetLowCreditBalanceResponse(balance=_balance(wallet))

    async def ListCreditEntries(
        self, request: pb.ListCreditEntriesRequest, context: object
    ) -> pb.ListCreditEntriesResponse:
        """A page of the ledger of a wallet."""
        tenant = require_scope("read").tenant
        page = Page(request.page_size, request.page_token)
        found, token = await self._credits.list_entries(
            tenant, request.customer_id, request.currency, page
        )
        return pb.ListCreditEntriesResponse(
            entries=[_entry(each) for each in found], next_page_token=token
        )


def _grant_input(request: pb.GrantCreditsRequest) -> GrantInput:
    """A grant as asked for; a kind that nobody knows stays a number, to be refused."""
    number = request.kind or pb.CREDIT_GRANT_KIND_PAID
    value = pb.CreditGrantKind.DESCRIPTOR.values_by_number.get(number)
    return GrantInput(
        customer_id=request.customer_id,
        amount=request.amount,
        currency=request.currency,
        kind=str(number) if value is None else value.name.removeprefix(_GRANT_KIND),
        priority=request.priority if request.HasField("priority") else PRIORITY_DEFAULT,
        description=request.description,
        metadata_json=request.metadata_json,
        expire_time=messages.time_or_none(request, "expire_time", "expiresAt"),
    )


def _balance(found: Wallet) -> pb.CreditBalance:
    low = found.low_balance
    return pb.CreditBalance(
        customer_id=found.customer_id,
        currency=found.currency,
        balance=format_money(found.balance, found.currency),
        low_balance="" if low is None else format_money(low, found.currency),
        newest_sequence=found.sequence,
    )


def _grant(found: CreditGrant) -> pb.CreditGrant:
    return pb.CreditGrant(
        id=found.id,
        customer_id=found.customer_id,
        currency=found.currency,
        amount=format_money(found.amount, found.currency),
        balance=format_money(found.balance, found.currency),
        kind=pb.CreditGrantKind.Value(_GRANT_KIND + found.kind),
        priority=found.priority,
        description=found.description,
        metadata_json=found.metadata_json,
        expire_time=messages.timestamp(found.expire_time),
        void_time=messages.timestamp(found.void_time),
        credit_note_id=found.credit_note_id,
        create_time=messages.timestamp(found.create_time),
    )


def _entry(found: CreditEntry) -> pb.CreditEntry:
    return pb.CreditEntry(
        sequence=found.sequence,
        kind=pb.CreditEntryKind.Value(_ENTRY_KIND + found.kind),
        amount=format_money(found.amount, found.currency),
        balance=format_money(found.balance, found.currency),
        currency=found.currency,
        grant_id=found.grant_id,
        invoice_id=found.invoice_id,
        reason=found.reason,
        create_time=messages.timestamp(found.create_time),
    )
