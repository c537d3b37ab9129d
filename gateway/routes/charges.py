"""/api/charges"""

from litestar import Response, delete, get, post
from litestar.params import FromPath, JSONBody
from usageflow.invoicer.v1 import billing_terms_pb2 as pb

from gateway.calls import ApiCalls
from gateway.idempotency import IdempotencyKey, key_of, replayed_headers
from gateway.preconditions import IfMatch, etag, tags_of
from gateway.query import Asked, query
from gateway.shapes.billing_terms import (
    Charge,
    ChargePage,
    ChargesQuery,
    NewCharge,
    charge_from_proto,
    charge_to_proto,
)


@post("/api/charges")
async def create_charge(
    calls: ApiCalls, data: JSONBody[NewCharge], idempotency_key: IdempotencyKey = None
) -> Response[Charge]:
    """Charge a customer once, on the next invoice of a subscription or at once.

    The same Idempotency-Key with the same content answers with the charge that is there, and
    `Idempotent-Replayed: true`; with other content: 409.
    """
    request = charge_to_proto(data, key_of(idempotency_key))
    answer = await calls.call(calls.terms.CreateCharge, request)
    return Response(
        charge_from_proto(answer.charge),
        status_code=201,
        headers=replayed_headers(answer.replayed),
    )


@get("/api/charges", dependencies=query(ChargesQuery))
async def list_charges(calls: ApiCalls, asked: Asked[ChargesQuery]) -> ChargePage:
    """List charges, newest first."""
    request = pb.ListChargesRequest(
        customer_id=asked.customer_id, page_size=asked.limit, page_token=asked.cursor
    )
    answer = await calls.call(calls.terms.ListCharges, request)
    return ChargePage(
        data=[charge_from_proto(charge) for charge in answer.charges],
        next_cursor=answer.next_page_token or None,
    )


@get("/api/charges/{charge_id:str}")
async def get_charge(calls: ApiCalls, charge_id: FromPath[str]) -> Response[Charge]:
    """One charge."""
    answer = await calls.call(calls.terms.GetCharge, pb.GetChargeRequest(charge_id=charge_id))
    return Response(charge_from_proto(answer.charge), headers=etag(answer.charge))


@delete("/api/charges/{charge_id:str}")
async def delete_charge(
    calls: ApiCalls, charge_id: FromPath[str], if_match: IfMatch = None
) -> None:
    """Take back a charge that waits for an invoice; 409 charge_invoiced when it is on one."""
    request = pb.DeleteChargeRequest(charge_id=charge_id, if_match=tags_of(if_match))
    await calls.call(calls.terms.DeleteCharge, request)


HANDLERS = [create_charge, list_charges, get_charge, delete_charge]
