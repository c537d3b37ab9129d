"""Quotas over real gRPC: who may call, and what the messages say."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from usageflow.aggregator.v1 import quotas_pb2 as pb

from services.aggregator.domain import NewMetric
from services.aggregator.metric_service import Metrics
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import DomainError
from tests.integration.aggregator.conftest import SetWatermark
from tests.integration.aggregator.quota_serving import Client, serving_quotas
from tests.integration.aggregator.quota_setting import QuotaReplica


@pytest.fixture
async def client(
    database: Database, watermark: SetWatermark, metrics: Metrics, tenant: TenantKey
) -> AsyncIterator[Client]:
    """A client of a running QuotaService; the metric A is defined."""
    await metrics.create(tenant, NewMetric("A"))
    async with serving_quotas(QuotaReplica.on(database, watermark, tenant)) as client:
        yield client


def new_quota(**changes: Any) -> pb.SetQuotaRequest:
    """A hard quota of 10 a day for user_1, unless `changes` say otherwise."""
    fields: dict[str, Any] = {
        "metric": "A",
        "customer_id": "user_1",
        "period": pb.QUOTA_PERIOD_DAY,
        "limit": "10.50",
        "time_zone": "Asia/Kathmandu",
    }
    return pb.SetQuotaRequest(quota=pb.Quota(**fields | changes))


async def test_a_quota_is_set_found_checked_reserved_and_deleted(client: Client) -> None:
    made = await client.call("admin", "SetQuota", new_quota())
    quota = made.quota
    assert (made.created, quota.limit, quota.customer_id) == (True, "10.5", "user_1")
    assert quota.enforcement == pb.QUOTA_ENFORCEMENT_HARD
    assert list(quota.thresholds.values) == ["50%", "80%", "100%"]
    silent = new_quota(thresholds=pb.QuotaThresholds())
    again = await client.call("admin", "SetQuota", silent)
    assert (again.created, list(again.quota.thresholds.values)) == (False, [])
    found = await client.call("read", "GetQuota", pb.GetQuotaRequest(id=quota.id))
    assert found.quota.create_time == quota.create_time
    listed = await client.call("read", "ListQuotas", pb.ListQuotasRequest(customer_id="user_1"))
    assert list(listed.quotas) == [found.quota]
    request = pb.ReserveQuotaRequest(metric="A", customer_id="user_1", amount="4")
    reserved = await client.call("track", "ReserveQuota", request)
    reservation = reserved.reservation
    lasts = reservation.expire_time.ToDatetime() - reservation.create_time.ToDatetime()
    assert (reservation.status, lasts) == (
        pb.RESERVATION_STATUS_ACTIVE,
        timedelta(seconds=60),
    )
    asked = pb.CheckQuotaRequest(metric="A", customer_id="user_1", amount="6.5")
    answer = await client.call("track", "CheckQuota", asked)
    [state] = answer.quotas
    assert answer.allowed
    assert (state.limit, state.used, state.reserved, state.remaining) == ("10.5", "0", "4", "6.5")
    assert state.period_start.ToDatetime(clock.UTC) <= clock.now()
    assert state.resets_at.ToSeconds() - state.period_start.ToSeconds() == 86_400
    await client.call("admin", "DeleteQuota", pb.DeleteQuotaRequest(id=quota.id))
    free = await client.call(
        "read", "CheckQuota", pb.CheckQuotaRequest(metric="A", customer_id="user_1")
    )
    assert (free.allowed, len(free.quotas)) == (True, 0)


async def test_no_limit_and_for_ever_are_absent_in_answers(client: Client) -> None:
    default = new_quota(customer_id=None, limit=None, period=pb.QUOTA_PERIOD_TOTAL)
    made = (await client.call("admin", "SetQuota", default)).quota
    assert not made.HasField("limit")
    assert not made.HasField("customer_id")
    asked = pb.CheckQuotaRequest(metric="A", customer_id="user_2")
    [state] = (await client.call("read", "CheckQuota", asked)).quotas
    assert not any(state.HasField(name) for name in ("limit", "remaining", "resets_at"))


async def test_a_reservation_is_committed_or_released_and_says_so(client: Client) -> None:
    request = pb.ReserveQuotaRequest(metric="A", customer_id="user_1", amount="4", ttl_seconds=5)
    first = (await client.call("track", "ReserveQuota", request)).reservation
    second = (await client.call("track", "ReserveQuota", request)).reservation
    commit = pb.CommitReservationRequest(id=first.id, amount="3.0")
    committed = (await client.call("track", "CommitReservation", commit)).reservation
    assert (committed.status, committed.committed_amount) == (
        pb.RESERVATION_STATUS_COMMITTED,
        "3",
    )
    release = pb.ReleaseReservationRequest(id=second.id)
    await client.call("track", "ReleaseReservation", release)
    for key in ("read", "track"):
        found = await client.call(key, "GetReservation", pb.GetReservationRequest(id=second.id))
        assert found.reservation.status == pb.RESERVATION_STATUS_RELEASED


async def test_a_refusal_is_failed_precondition_with_figures(client: Client) -> None:
    await client.call("admin", "SetQuota", new_quota())
    request = pb.ReserveQuotaRequest(metric="A", customer_id="user_1", amount="11")
    with pytest.raises(DomainError) as caught:
        await client.call("track", "ReserveQuota", request)
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.reason == "quota_exceeded"
    assert caught.value.metadata["remaining"] == "10.5"


@pytest.mark.parametrize(
    ("key", "method", "request_"),
    [
        ("read", "SetQuota", pb.SetQuotaRequest()),
        ("track", "GetQuota", pb.GetQuotaRequest()),
        ("track", "ListQuotas", pb.ListQuotasRequest()),
        ("read", "DeleteQuota", pb.DeleteQuotaRequest()),
        ("read", "ReserveQuota", pb.ReserveQuotaRequest()),
        ("read", "CommitReservation", pb.CommitReservationRequest()),
        ("admin", "ReleaseReservation", pb.ReleaseReservationRequest()),
    ],
)
async def test_each_call_needs_its_scope(
    client: Client, key: str, method: str, request_: Any
) -> None:
    with pytest.raises(DomainError) as caught:
        await client.call(key, method, request_)
    assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED


async def test_numbers_that_are_newer_than_this_program_are_refused(client: Client) -> None:
    wrong = new_quota(period=99, enforcement=98)
    with pytest.raises(DomainError) as caught:
        await client.call("admin", "SetQuota", wrong)
    assert [problem.field for problem in caught.value.problems] == ["period", "enforcement"]
