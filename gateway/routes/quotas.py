"""/api/quotas"""

from litestar import Response, delete, get, post
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, JSONBody
from usageflow.aggregator.v1 import quotas_pb2 as pb

from gateway.calls import ApiCalls
from gateway.preconditions import IfMatch, etag, tags_of
from gateway.query import Asked, query
from gateway.shapes.quotas import (
    CheckQuery,
    Commitment,
    NewQuota,
    NewReservation,
    Quota,
    QuotaCheck,
    QuotaPage,
    QuotasQuery,
    Reservation,
    ReservationWithQuotas,
    check_from_proto,
    from_proto,
    reservation_from_proto,
    reservation_to_proto,
    reserved_from_proto,
    to_proto,
)


@post("/api/quotas", responses={200: ResponseSpec(Quota, generate_examples=False)})
async def set_quota(
    calls: ApiCalls, data: JSONBody[NewQuota], if_match: IfMatch = None
) -> Response[Quota]:
    """Make a quota, or set the one of this metric, customer and period in full: 201 or 200."""
    request = to_proto(data)
    request.if_match.extend(tags_of(if_match))
    answer = await calls.call(calls.quotas.SetQuota, request)
    status = 201 if answer.created else 200
    return Response(from_proto(answer.quota), status_code=status, headers=etag(answer.quota))


@get("/api/quotas", dependencies=query(QuotasQuery))
async def list_quotas(calls: ApiCalls, asked: Asked[QuotasQuery]) -> QuotaPage:
    """List quotas, newest first."""
    request = pb.ListQuotasRequest(
        metric=asked.metric,
        customer_id=asked.customer_id,
        page_size=asked.limit,
        page_token=asked.cursor,
    )
    answer = await calls.call(calls.quotas.ListQuotas, request)
    return QuotaPage(
        data=[from_proto(quota) for quota in answer.quotas],
        next_cursor=answer.next_page_token or None,
    )


@get("/api/quotas/check", dependencies=query(CheckQuery))
async def check_quota(calls: ApiCalls, asked: Asked[CheckQuery]) -> QuotaCheck:
    """Whether a customer may use so much more. It sets nothing aside: reserve for that."""
    request = pb.CheckQuotaRequest(
        metric=asked.metric, customer_id=asked.customer_id, amount=asked.amount
    )
    return check_from_proto(await calls.call(calls.quotas.CheckQuota, request))


@get("/api/quotas/{quota_id:str}")
async def get_quota(calls: ApiCalls, quota_id: FromPath[str]) -> Response[Quota]:
    """One quota."""
    answer = await calls.call(calls.quotas.GetQuota, pb.GetQuotaRequest(id=quota_id))
    return Response(from_proto(answer.quota), headers=etag(answer.quota))


@delete("/api/quotas/{quota_id:str}")
async def delete_quota(calls: ApiCalls, quota_id: FromPath[str], if_match: IfMatch = None) -> None:
    """Take a quota away."""
    request = pb.DeleteQuotaRequest(id=quota_id, if_match=tags_of(if_match))
    await calls.call(calls.quotas.DeleteQuota, request)


@post("/api/quotas/reservations")
async def reserve_quota(calls: ApiCalls, data: JSONBody[NewReservation]) -> ReservationWithQuotas:
    """Set units aside; 409 quota_exceeded when a hard quota has too little left.

    Record the usage first (POST /api/track), then commit.
    """
    answer = await calls.call(calls.quotas.ReserveQuota, reservation_to_proto(data))
    return reserved_from_proto(answer)


@get("/api/quotas/reservations/{reservation_id:str}")
async def get_reservation(calls: ApiCalls, reservation_id: FromPath[str]) -> Reservation:
    """One reservation."""
    request = pb.GetReservationRequest(id=reservation_id)
    answer = await calls.call(calls.quotas.GetReservation, request)
    return reservation_from_proto(answer.reservation)


@post("/api/quotas/reservations/{reservation_id:str}/commit", status_code=200)
async def commit_reservation(
    calls: ApiCalls, reservation_id: FromPath[str], data: JSONBody[Commitment]
) -> Reservation:
    """The units were used and the usage was recorded; repeating it changes nothing."""
    request = pb.CommitReservationRequest(id=reservation_id, amount=data.amount or "")
    answer = await calls.call(calls.quotas.CommitReservation, request)
    return reservation_from_proto(answer.reservation)


@post("/api/quotas/reservations/{reservation_id:str}/release", status_code=200)
async def release_reservation(calls: ApiCalls, reservation_id: FromPath[str]) -> Reservation:
    """Give the units back, unused; repeating it changes nothing."""
    request = pb.ReleaseReservationRequest(id=reservation_id)
    answer = await calls.call(calls.quotas.ReleaseReservation, request)
    return reservation_from_proto(answer.reservation)


HANDLERS = [
    set_quota,
    list_quotas,
    check_quota,
    get_quota,
    delete_quota,
    reserve_quota,
    get_reservation,
    commit_reservation,
    release_reservation,
]
