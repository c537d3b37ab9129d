"""Cases of the routes that become RPCs of invoicer's CreditsService."""

from usageflow.invoicer.v1 import credits_pb2 as pb

from tests.integration.gateway.route_cases import Case, at, page

GRANT = pb.CreditGrant(
    id="crg_1",
    customer_id="user/1",
    currency="USD",
    amount="100.00",
    balance="40.00",
    kind=pb.CREDIT_GRANT_KIND_PROMOTIONAL,
    priority=10,
    description="Welcome",
    metadata_json='{"a":1.50}',
    expire_time=at(31),
    credit_note_id="cn_1",
    create_time=at(1),
)
GRANT_JSON = {
    "id": "crg_1",
    "customerId": "user/1",
    "currency": "USD",
    "amount": "100.00",
    "balance": "40.00",
    "kind": "PROMOTIONAL",
    "priority": 10,
    "description": "Welcome",
    "metadata": {"a": 1.5},
    "expiresAt": "2026-01-31T00:00:00Z",
    "voidedAt": None,
    "creditNoteId": "cn_1",
    "createdAt": "2026-01-01T00:00:00Z",
}
BALANCE = pb.CreditBalance(
    customer_id="user/1", currency="USD", balance="40.00", low_balance="20.00", newest_sequence=2
)
BALANCE_JSON = {
    "customerId": "user/1",
    "currency": "USD",
    "balance": "40.00",
    "lowBalance": "20.00",
}
ENTRY = pb.CreditEntry(
    sequence=2,
    kind=pb.CREDIT_ENTRY_KIND_APPLY,
    amount="-60.00",
    balance="40.00",
    currency="USD",
    grant_id="crg_1",
    invoice_id="inv_1",
    create_time=at(2),
)
ENTRY_JSON = {
    "sequence": 2,
    "kind": "APPLY",
    "amount": "-60.00",
    "balance": "40.00",
    "currency": "USD",
    "grantId": "crg_1",
    "invoiceId": "inv_1",
    "reason": "",
    "createdAt": "2026-01-02T00:00:00Z",
}
PATH = "/api/customers/user%2F1/credits"
VOID = "/api/customers/user_1/credits/grants/crg_1/void"

CASES = [
    Case(
        "GET",
        PATH,
        "ListCreditBalances",
        pb.ListCreditBalancesRequest(customer_id="user/1"),
        pb.ListCreditBalancesResponse(balances=[BALANCE]),
        {"data": [BALANCE_JSON]},
    ),
    Case(
        "POST",
        PATH + "/grants",
        "GrantCredits",
        pb.GrantCreditsRequest(
            customer_id="user/1",
            currency="USD",
            amount="100",
            kind=pb.CREDIT_GRANT_KIND_PROMOTIONAL,
            priority=10,
            description="Welcome",
            metadata_json='{"a":1.50}',
            expire_time=at(31),
        ),
        pb.GrantCreditsResponse(grant=GRANT),
        GRANT_JSON,
        '{"amount": 100, "currency": "USD", "kind": "PROMOTIONAL", "priority": 10, '
        '"description": "Welcome", "expiresAt": "2026-01-31T00:00:00Z", "metadata": {"a": 1.50}}',
        201,
    ),
    Case(
        "GET",
        PATH + "/grants",
        "ListCreditGrants",
        pb.ListCreditGrantsRequest(customer_id="user/1", page_size=20),
        pb.ListCreditGrantsResponse(grants=[GRANT], next_page_token="next"),
        page(GRANT_JSON),
    ),
    Case(
        "POST",
        VOID,
        "VoidCreditGrant",
        pb.VoidCreditGrantRequest(customer_id="user_1", grant_id="crg_1", reason="R"),
        pb.VoidCreditGrantResponse(grant=GRANT),
        GRANT_JSON,
        {"reason": "R"},
    ),
    Case(
        "POST",
        PATH + "/debits",
        "DebitCredits",
        pb.DebitCreditsRequest(customer_id="user/1", amount="60", reason="R"),
        pb.DebitCreditsResponse(balance=BALANCE),
        BALANCE_JSON,
        {"amount": "60", "reason": "R"},
    ),
    Case(
        "PUT",
        PATH + "/low-balance",
        "SetLowCreditBalance",
        pb.SetLowCreditBalanceRequest(customer_id="user/1", currency="USD", low_balance="20"),
        pb.SetLowCreditBalanceResponse(balance=BALANCE),
        BALANCE_JSON,
        {"lowBalance": "20", "currency": "USD"},
    ),
    Case(
        "GET",
        PATH + "/ledger?currency=USD",
        "ListCreditEntries",
        pb.ListCreditEntriesRequest(customer_id="user/1", currency="USD", page_size=20),
        pb.ListCreditEntriesResponse(entries=[ENTRY], next_page_token="next"),
        page(ENTRY_JSON),
    ),
]
