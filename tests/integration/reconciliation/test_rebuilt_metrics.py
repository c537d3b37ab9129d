"""A metric is held against what was accepted while it is built anew, and afterwards."""

import pytest

from services.kit.database import TenantKey
from tests.integration.model.naive import KINDS
from tests.integration.model.world import UNIQUE_BY
from tests.integration.reconciliation.conftest import Setting
from tests.integration.reconciliation.test_differences import CUSTOMERS, figure, sent

# What the metric counts by now, and what is being built.
SERVING = "(SELECT series_id FROM series JOIN metrics ON counted_id = series.metric_id)"
BUILT = "(SELECT series_id FROM series JOIN metric_rebuilds ON building_id = series.metric_id)"


@pytest.fixture
async def tenant(setting: Setting) -> TenantKey:
    """With a metric of each kind."""
    return await setting.world.new_tenant()


async def filled(setting: Setting, tenant: TenantKey) -> dict[str, object]:
    """The figures of all kinds, of which some events were voided."""
    for kind in KINDS:
        ids = await setting.send(
            tenant,
            *(
                sent(amount, kind, customer, minutes)
                for minutes, amount in enumerate(("3", "1", "2.5", "7"))
                for customer in CUSTOMERS
            ),
        )
        await setting.world.settle()
        await setting.world.void(tenant, ids[-2:])
    await setting.world.settle()
    return {kind: await figure(setting, tenant, kind) for kind in KINDS}


async def split_all(setting: Setting, tenant: TenantKey) -> None:
    for kind in KINDS:
        await setting.world.split(tenant, kind, (UNIQUE_BY,))


async def test_what_is_being_built_is_no_difference(setting: Setting, tenant: TenantKey) -> None:
    before = await filled(setting, tenant)
    await split_all(setting, tenant)
    parts = 0
    while await setting.world.build(0, parts):
        await setting.check()
        parts = 3
    assert await setting.differences() == []
    assert {kind: await figure(setting, tenant, kind) for kind in KINDS} == before


async def test_what_was_built_is_repaired_when_it_is_wrong(
    setting: Setting, tenant: TenantKey
) -> None:
    before = await filled(setting, tenant)
    await split_all(setting, tenant)
    while await setting.world.build(0, None):
        pass
    await setting.sql(
        f"UPDATE usage_buckets SET amount_sum = amount_sum + 1 WHERE series_id IN {SERVING}"
    )
    await setting.check()
    found = await setting.differences()
    assert found
    assert all(repaired for *_, repaired in found)
    assert {kind: await figure(setting, tenant, kind) for kind in KINDS} == before
    await setting.world.assert_rolled_up()


@pytest.mark.parametrize("wrong", [SERVING, BUILT], ids=["what serves", "what is built"])
async def test_what_is_wrong_in_either_is_right_in_the_end(
    setting: Setting, tenant: TenantKey, wrong: str
) -> None:
    """A count that was changed by something else than the fold never takes the other's place."""
    before = await filled(setting, tenant)
    await setting.world.split(tenant, "SUM", ("other",))
    await setting.world.build(0, 4)
    await setting.sql(
        f"UPDATE usage_buckets SET amount_sum = amount_sum + 1 WHERE series_id IN {wrong}"
    )
    await setting.world.build(0, None)
    [(state, attempt)] = await setting.sql("SELECT state, attempt FROM metric_rebuilds")
    assert (state, attempt) == ("EVENTS", 2), "it is built once more"
    await setting.check()
    await setting.sql("UPDATE metric_rebuilds SET due_time = now()")
    while await setting.world.build(0, None):
        pass
    assert await setting.sql("SELECT state FROM metric_rebuilds") == [("DONE",)]
    assert await figure(setting, tenant, "SUM") == before["SUM"]
