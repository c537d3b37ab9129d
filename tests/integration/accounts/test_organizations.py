"""Organizations and their settings, on a real database."""

import asyncio

import pytest

from services.accounts.domain import OrganizationChange, Settings
from services.accounts.service import Accounts
from services.kit.database import TenantKey
from services.kit.errors import InvalidArgumentError, NotFoundError, UnavailableError
from tests.integration.accounts.conftest import RecordedChanges


async def test_a_new_organization_has_the_default_settings(
    accounts: Accounts, tenant: TenantKey
) -> None:
    organization = await accounts.get_organization(tenant.organization_id)
    assert organization.settings == Settings(event_past_days=35, event_retention_days=400)


async def test_what_a_change_leaves_out_stays(accounts: Accounts, tenant: TenantKey) -> None:
    changed = await accounts.update_organization(
        tenant.organization_id, OrganizationChange(event_past_days=400)
    )
    assert (changed.name, changed.settings) == ("Acme", Settings(400, 400))
    renamed = await accounts.update_organization(
        tenant.organization_id, OrganizationChange(name="Acme Inc.")
    )
    assert (renamed.name, renamed.settings) == ("Acme Inc.", Settings(400, 400))
    assert await accounts.get_organization(tenant.organization_id) == renamed


async def test_every_process_is_told_of_a_change(
    accounts: Accounts, tenant: TenantKey, changes: RecordedChanges
) -> None:
    await accounts.update_organization(tenant.organization_id, OrganizationChange())
    assert changes.organization_ids == [tenant.organization_id]


async def test_a_change_holds_even_when_nobody_can_be_told(
    accounts: Accounts, tenant: TenantKey, changes: RecordedChanges
) -> None:
    changes.failure = UnavailableError("NATS is away")
    await accounts.update_organization(
        tenant.organization_id, OrganizationChange(event_past_days=100)
    )
    organization = await accounts.get_organization(tenant.organization_id)
    assert organization.settings.event_past_days == 100


async def test_keys_are_kept_at_least_as_long_as_events_may_be_sent(
    accounts: Accounts, tenant: TenantKey
) -> None:
    """Whichever of the two settings changes, and however the changes meet."""
    with pytest.raises(InvalidArgumentError) as refused:
        await accounts.update_organization(
            tenant.organization_id, OrganizationChange(None, 200, 199)
        )
    assert [str(problem.message) for problem in refused.value.problems] == [
        "must be at least eventPastDays, which is 200"
    ]
    answers = await asyncio.gather(
        accounts.update_organization(
            tenant.organization_id, OrganizationChange(event_past_days=300)
        ),
        accounts.update_organization(
            tenant.organization_id, OrganizationChange(event_retention_days=299)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, InvalidArgumentError) for answer in answers) == 1


async def test_events_may_be_kept_for_good(accounts: Accounts, tenant: TenantKey) -> None:
    kept = OrganizationChange(event_retention_days=36_500)
    changed = await accounts.update_organization(tenant.organization_id, kept)
    assert changed.settings.event_retention_days == 36_500
    longer = OrganizationChange(event_retention_days=36_501)
    with pytest.raises(InvalidArgumentError, match="from 90 to 36500 days"):
        await accounts.update_organization(tenant.organization_id, longer)


@pytest.mark.parametrize("organization_id", ["", "org_" + "0" * 32, "org_\x00"])
async def test_an_unknown_organization_is_not_changed(
    accounts: Accounts, organization_id: str
) -> None:
    with pytest.raises(NotFoundError):
        await accounts.update_organization(organization_id, OrganizationChange(name="x"))


async def test_another_organization_s_settings_stay(accounts: Accounts, tenant: TenantKey) -> None:
    other = await accounts.create_organization("Other")
    await accounts.update_organization(
        tenant.organization_id, OrganizationChange(event_past_days=400)
    )
    assert await accounts.get_organization(other.id) == other


@pytest.mark.parametrize(("size", "token"), [(1_001, ""), (-1, ""), (0, "x"), (0, "WyIAIl0")])
async def test_a_wrong_page_of_organizations_is_refused(
    accounts: Accounts, size: int, token: str
) -> None:
    with pytest.raises(InvalidArgumentError):
        await accounts.list_organizations(size, token)
