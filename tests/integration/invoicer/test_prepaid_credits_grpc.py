"""CreditsService over real gRPC: contents, scopes, and what one tenant sees of another."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from usageflow.invoicer.v1 import credits_pb2 as pb

from services.invoicer.checks import CustomerInput
from services.invoicer.credit_servicer import CreditsServicer
from services.kit.errors import InvalidArgumentError, NotFoundError
from tests.integration.invoicer.serving import Api, serving
from tests.integration.invoicer.stand_ins import World

OWNER: dict[str, Any] = {"customer_id": "user_123"}


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    """The service of `world` on a port of its own."""
    await world.customers.put_customer(world.tenant, CustomerInput("user_123"))
    async with serving(world, CreditsServicer(world.credits)) as api:
        yield api


async def examples(api: Api) -> dict[str, dict[str, Any]]:
    """A request for each method about things of ours."""
    money = {**OWNER, "amount": "5", "currency": "USD"}
    grant = (await api.call("GrantCredits", **money)).grant
    return {
        "GrantCredits": money,
        "ListCreditGrants": OWNER,
        "VoidCreditGrant": {**OWNER, "grant_id": grant.id},
        "DebitCredits": {**money, "amount": "1", "reason": "R"},
        "ListCreditBalances": OWNER,
        "SetLowCreditBalance": {**OWNER, "currency": "USD", "low_balance": "2"},
        "ListCreditEntries": OWNER,
    }


async def test_credit_comes_back_as_it_was_sent(world: World, api: Api) -> None:
    sent = pb.GrantCreditsRequest(
        **OWNER,
        currency="USD",
        amount="12.5",
        kind=pb.CREDIT_GRANT_KIND_PROMOTIONAL,
        priority=0,
        description="Welcome",
        metadata_json='{"a": 1.50}',
    )
    sent.expire_time.FromJsonString("2027-01-01T00:00:00Z")
    fields = {field.name: value for field, value in sent.ListFields()}
    fields = {field.name: value for field, value in sent.ListFields()}
    grant = (await api.call("GrantCredits", **fields)).grant
    for name in ("customer_id", "currency", "kind", "description", "metadata_json", "expire_time"):
        assert getattr(grant, name) == getattr(sent, name)
    assert (grant.amount, grant.balance, grant.priority) == ("12.50", "12.50", 0)
    plain = (await api.call("GrantCredits", **OWNER, amount="1", currency="USD")).grant
    assert (plain.kind, plain.priority) == (pb.CREDIT_GRANT_KIND_PAID, 50)
    listed = await api.call("ListCreditGrants", "ours-read", **OWNER)
    assert list(listed.grants) == [plain, grant]
    left = await api.call("DebitCredits", **OWNER, amount="2.5", reason="by hand")
    assert (left.balance.balance, left.balance.newest_sequence) == ("11.00", 3)
    low = (await api.call("SetLowCreditBalance", **OWNER, low_balance="3")).balance
    assert (low.balance, low.low_balance) == ("11.00", "3.00")
    assert list((await api.call("ListCreditBalances", "ours-read", **OWNER)).balances) == [low]
    entries = (await api.call("ListCreditEntries", "ours-read", **OWNER)).entries
    assert [(each.sequence, each.amount, each.balance) for each in entries] == [
        (3, "-2.50", "11.00"),
        (2, "1.00", "13.50"),
        (1, "12.50", "12.50"),
    ]
    assert (entries[0].kind, entries[0].grant_id) == (pb.CREDIT_ENTRY_KIND_DEBIT, grant.id)
    voided = (await api.call("VoidCreditGrant", **OWNER, grant_id=grant.id)).grant
    assert (voided.balance, voided.HasField("void_time")) == ("0.00", True)
    told = await world.audited()
    audited = [each for each in told if each.action != "customer.created"]
    assert sorted((each.action, each.target_id) for each in audited) == sorted(
        [
            ("credits.granted", grant.id),
            ("credits.granted", plain.id),
            ("credits.debited", "user_123"),
            ("credits.threshold_changed", "user_123"),
            ("credits.voided", grant.id),
        ]
    )
    assert all(each.key_id for each in audited)
    with pytest.raises(InvalidArgumentError, match="kind: must be one of PAID, PROMOTIONAL"):
        await api.call("GrantCredits", **OWNER, amount="1", currency="USD", kind=9)


async def test_reading_takes_the_scope_read_and_all_else_admin(api: Api) -> None:
    requests = await examples(api)
    reads = {name for name in requests if name.startswith("List")}
    await api.refuse_who_lacks_scopes(requests, reads)


@pytest.mark.parametrize("key", ["theirs-admin", "ours-admin-live"])
async def test_no_method_shows_or_changes_what_is_another_tenants(api: Api, key: str) -> None:
    requests = await examples(api)
    for name, request in requests.items():
        with pytest.raises(NotFoundError):
            await api.call(name, key, **request)
    (balance,) = (await api.call("ListCreditBalances", **OWNER)).balances
    assert (balance.balance, balance.low_balance) == ("5.00", "")
