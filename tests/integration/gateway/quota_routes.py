"""Cases of the routes that become RPCs of aggregator's QuotaService."""

from usageflow.aggregator.v1 import quotas_pb2 as pb

from tests.integration.gateway.route_cases import Case, at, page

QUOTA = pb.Quota(
    id="quota_1",
    metric="AI_TOKEN",
    customer_id="user_1",
    period=pb.QUOTA_PERIOD_DAY,
    limit="100.5",
    enforcement=pb.QUOTA_ENFORCEMENT_SOFT,
    time_zone="Asia/Tokyo",
    create_time=at(1),
    update_time=at(2),
    thresholds=pb.QuotaThresholds(values=["90%", "1000"]),
)
QUOTA_JSON = {
    "id": "quota_1",
    "metric": "AI_TOKEN",
    "customerId": "user_1",
    "period": "DAY",
    "limit": "100.5",
    "enforcement": "SOFT",
    "timezone": "Asia/Tokyo",
    "thresholds": ["90%", "1000"],
    "createdAt": "2026-01-01T00:00:00Z",
    "updatedAt": "2026-01-02T00:00:00Z",
}
DEFAULT = pb.Quota(
    id="quota_2",
    metric="AI_TOKEN",
    period=pb.QUOTA_PERIOD_MONTH,
    enforcement=pb.QUOTA_ENFORCEMENT_HARD,
    create_time=at(1),
    update_time=at(1),
)
DEFAULT_JSON: dict[str, object] = {
    "id": "quota_2",
    "metric": "AI_TOKEN",
    "customerId": None,
    "period": "MONTH",
    "limit": None,
    "enforcement": "HARD",
    "timezone": None,
    "thresholds": [],
    "createdAt": "2026-01-01T00:00:00Z",
    "updatedAt": "2026-01-01T00:00:00Z",
}
STATE = pb.QuotaState(
    quota_id="quota_1",
    period=pb.QUOTA_PERIOD_DAY,
    enforcement=pb.QUOTA_ENFORCEMENT_HARD,
    limit="100",
    used="90",
    reserved="3",
    remaining="7",
    period_start=at(1),
    resets_at=at(2),
)
STATE_JSON = {
    "quotaId": "quota_1",
    "period": "DAY",
    "enforcement": "HARD",
    "limit": "100",
    "used": "90",
    "reserved": "3",
    "remaining": "7",
    "periodStart": "2026-01-01T00:00:00Z",
    "resetsAt": "2026-01-02T00:00:00Z",
}
RESERVATION = pb.Reservation(
    id="res_1",
    metric="AI_TOKEN",
    customer_id="user_1",
    amount="3",
    status=pb.RESERVATION_STATUS_ACTIVE,
    create_time=at(1),
    expire_time=at(2),
)
RESERVATION_JSON = {
    "id": "res_1",
    "metric": "AI_TOKEN",
    "customerId": "user_1",
    "amount": "3",
    "status": "ACTIVE",
    "committedAmount": None,
    "createdAt": "2026-01-01T00:00:00Z",
    "expiresAt": "2026-01-02T00:00:00Z",
}
COMMITTED = pb.Reservation()
COMMITTED.CopyFrom(RESERVATION)
COMMITTED.status = pb.RESERVATION_STATUS_COMMITTED
COMMITTED.committed_amount = "0"
COMMITTED_JSON = RESERVATION_JSON | {"status": "COMMITTED", "committedAmount": "0"}

CASES = [
    Case(
        "POST",
        "/api/quotas",
        "SetQuota",
        pb.SetQuotaRequest(
            quota=pb.Quota(
                metric="AI_TOKEN",
                customer_id="user_1",
                period=pb.QUOTA_PERIOD_DAY,
                limit="100.5",
                enforcement=pb.QUOTA_ENFORCEMENT_SOFT,
                time_zone="Asia/Tokyo",
                thresholds=pb.QuotaThresholds(values=["90%", "1000"]),
            )
        ),
        pb.SetQuotaResponse(quota=QUOTA, created=True),
        QUOTA_JSON,
        {
            "metric": "AI_TOKEN",
            "customerId": "user_1",
            "period": "DAY",
            "limit": 100.5,
            "enforcement": "SOFT",
            "timezone": "Asia/Tokyo",
            "thresholds": ["90%", "1000"],
        },
        201,
    ),
    Case(
        "POST",
        "/api/quotas",
        "SetQuota",
        pb.SetQuotaRequest(
            quota=pb.Quota(
                metric="AI_TOKEN",
                period=pb.QUOTA_PERIOD_MONTH,
                enforcement=pb.QUOTA_ENFORCEMENT_HARD,
            )
        ),
        pb.SetQuotaResponse(quota=DEFAULT),
        DEFAULT_JSON,
        {"metric": "AI_TOKEN", "limit": None},
    ),
    Case(
        "GET",
        "/api/quotas?metric=AI_TOKEN&customerId=user_1&limit=1&cursor=c",
        "ListQuotas",
        pb.ListQuotasRequest(metric="AI_TOKEN", customer_id="user_1", page_size=1, page_token="c"),
        pb.ListQuotasResponse(quotas=[QUOTA], next_page_token="next"),
        page(QUOTA_JSON),
    ),
    Case(
        "GET",
        "/api/quotas/check?metric=AI_TOKEN&customerId=user_1&amount=2.5",
        "CheckQuota",
        pb.CheckQuotaRequest(metric="AI_TOKEN", customer_id="user_1", amount="2.5"),
        pb.CheckQuotaResponse(allowed=True, quotas=[STATE]),
        {
            "allowed": True,
            "limit": "100",
            "used": "90",
            "reserved": "3",
            "remaining": "7",
            "resetsAt": "2026-01-02T00:00:00Z",
            "quotas": [STATE_JSON],
        },
    ),
    Case(
        "GET",
        "/api/quotas/check?metric=AI_TOKEN&customerId=user_1",
        "CheckQuota",
        pb.CheckQuotaRequest(metric="AI_TOKEN", customer_id="user_1"),
        pb.CheckQuotaResponse(allowed=True),
        {
            "allowed": True,
            "limit": None,
            "used": "0",
            "reserved": "0",
            "remaining": None,
            "resetsAt": None,
            "quotas": [],
        },
    ),
    Case(
        "GET",
        "/api/quotas/quota_1",
        "GetQuota",
        pb.GetQuotaRequest(id="quota_1"),
        pb.GetQuotaResponse(quota=QUOTA),
        QUOTA_JSON,
    ),
    Case(
        "DELETE",
        "/api/quotas/quota_1",
        "DeleteQuota",
        pb.DeleteQuotaRequest(id="quota_1"),
        pb.DeleteQuotaResponse(),
        None,
        status=204,
    ),
    Case(
        "POST",
        "/api/quotas/reservations",
        "ReserveQuota",
        pb.ReserveQuotaRequest(
            metric="AI_TOKEN",
            customer_id="user_1",
            amount="3",
            ttl_seconds=90,
            idempotency_key="k",
        ),
        pb.ReserveQuotaResponse(reservation=RESERVATION, quotas=[STATE]),
        RESERVATION_JSON | {"quotas": [STATE_JSON]},
        {
            "metric": "AI_TOKEN",
            "customerId": "user_1",
            "amount": "3",
            "ttlSeconds": 90,
            "idempotencyKey": "k",
        },
        201,
    ),
    Case(
        "GET",
        "/api/quotas/reservations/res_1",
        "GetReservation",
        pb.GetReservationRequest(id="res_1"),
        pb.GetReservationResponse(reservation=RESERVATION),
        RESERVATION_JSON,
    ),
    Case(
        "POST",
        "/api/quotas/reservations/res_1/commit",
        "CommitReservation",
        pb.CommitReservationRequest(id="res_1", amount="0"),
        pb.CommitReservationResponse(reservation=COMMITTED),
        COMMITTED_JSON,
        {"amount": 0},
    ),
    Case(
        "POST",
        "/api/quotas/reservations/res_1/release",
        "ReleaseReservation",
        pb.ReleaseReservationRequest(id="res_1"),
        pb.ReleaseReservationResponse(reservation=RESERVATION),
        RESERVATION_JSON,
    ),
]
