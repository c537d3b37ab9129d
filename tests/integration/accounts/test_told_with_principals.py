"""Test clocks are handed out with everything of test mode that says who is calling."""

from datetime import UTC, datetime

import pytest

from services.accounts.domain import ClockTime, NewKey, OrganizationChange
from services.accounts.keys import OwnKeys
from services.accounts.members_servicer import People
from services.accounts.people import Seen
from services.kit.database import TenantKey
from services.kit.errors import NotFoundError
from services.kit.ids import new_id
from tests.integration.accounts.conftest import SIGNATURES, RecordedChanges

MAY = datetime(2027, 5, 1, tzinfo=UTC)
JUNE = datetime(2027, 6, 1, tzinfo=UTC)


async def callers(people: People, tenant: TenantKey) -> dict[str, str]:
    """Credentials of an organization, by whose they are."""
    live = TenantKey(tenant.organization_id, "live")
    _, link, _ = await people.signing_in.create_link(tenant.organization_id)
    _, _, session = await people.signing_in.by_link(link, Seen("127.0.0.1", "pytest"))

    async def link_of(tenant: TenantKey) -> str:
        made, token = await people.portals.create(tenant, "ada", None, by="key_0")
        return SIGNATURES.portal_link(token, made.expire_time)

    return {
        "key": (await people.accounts.create_api_key(tenant, NewKey("A", ["read"], None)))[1],
        "live key": (await people.accounts.create_api_key(live, NewKey("B", ["read"], None)))[1],
        "session": SIGNATURES.session(session, "test"),
        "live session": SIGNATURES.session(session, "live"),
        "link": await link_of(tenant),
        "live link": await link_of(live),
    }


async def test_who_calls_in_test_mode_is_told_what_clocks_show(
    people: People, tenant: TenantKey, changes: RecordedChanges
) -> None:
    secrets = await callers(people, tenant)
    other = (await people.accounts.create_organization("Other")).id
    keys = OwnKeys(people.accounts, people.signing_in, people.portals, SIGNATURES)

    async def shown() -> dict[str, datetime | None]:
        return {who: (await keys.resolve(secret)).time_of("ada") for who, secret in secrets.items()}

    organization_id, clock_id = tenant.organization_id, new_id("clk")
    set_clock = people.accounts.set_clock
    await set_clock(organization_id, clock_id, ClockTime("ada", MAY, 1))
    await set_clock(other, new_id("clk"), ClockTime("", JUNE, 1))
    told = [organization_id, other]
    assert changes.organization_ids == told
    lives = {"live key": None, "live session": None, "live link": None}
    assert await shown() == {"key": MAY, "session": MAY, "link": MAY, **lives}
    assert (await keys.resolve(secrets["key"])).time_of("bob") is None
    await set_clock(organization_id, clock_id, ClockTime("ada", JUNE, 3))
    # What comes too late changes nothing, and nobody is told.
    await set_clock(organization_id, clock_id, ClockTime("ada", MAY, 2))
    assert changes.organization_ids == [*told, organization_id]
    assert await shown() == {"key": JUNE, "session": JUNE, "link": JUNE, **lives}
    await set_clock(organization_id, clock_id, ClockTime("ada", None, 4))
    assert set((await shown()).values()) == {None}
    with pytest.raises(NotFoundError):
        await set_clock(new_id("org"), clock_id, ClockTime("ada", MAY, 9))


async def test_keys_and_sessions_are_told_of_strict_metrics(
    people: People, tenant: TenantKey
) -> None:
    secrets = await callers(people, tenant)
    keys = OwnKeys(people.accounts, people.signing_in, people.portals, SIGNATURES)
    change = OrganizationChange(strict_metrics=True)
    await people.accounts.update_organization(tenant.organization_id, change)
    assert {
        who: (await keys.resolve(secret)).strict_metrics for who, secret in secrets.items()
    } == {
        "key": True,
        "live key": True,
        "session": True,
        "live session": True,
        "link": False,
        "live link": False,
    }
