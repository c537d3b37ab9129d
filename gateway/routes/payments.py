"""/api/customers/{id}/payment-method and /api/invoices/{id}/payments"""

from litestar import Response, delete, get, post, put
from litestar.params import FromPath, JSONBody
from usageflow.invoicer.v1 import payments_pb2 as pb

from gateway.calls import ApiCalls
from gateway.preconditions import IfMatch, etag, tags_of
from gateway.shapes.common import time_of
from gateway.shapes.payments import (
    Collection,
    PaymentAttempts,
    PaymentMethod,
    attempts_from_proto,
    method_from_proto,
    method_to_proto,
)


@get("/api/customers/{customer_id:str}/payment-method")
async def get_payment_method(
    calls: ApiCalls, customer_id: FromPath[str]
) -> Response[PaymentMethod]:
    """What of a customer's is charged by the organization's payment provider."""
    request = pb.GetPaymentMethodRequest(customer_id=customer_id)
    return _shown((await calls.call(calls.payments.GetPaymentMethod, request)).payment_method)


@put("/api/customers/{customer_id:str}/payment-method")
async def set_payment_method(
    calls: ApiCalls,
    customer_id: FromPath[str],
    data: JSONBody[PaymentMethod],
    if_match: IfMatch = None,
) -> Response[PaymentMethod]:
    """Set what of a customer's is charged: invoices from now on are collected by themselves.

    It must be set up at Stripe for payments while the customer is away (`off_session`).
    """
    request = method_to_proto(customer_id, data)
    request.if_match.extend(tags_of(if_match))
    return _shown((await calls.call(calls.payments.SetPaymentMethod, request)).payment_method)


@delete("/api/customers/{customer_id:str}/payment-method")
async def remove_payment_method(
    calls: ApiCalls, customer_id: FromPath[str], if_match: IfMatch = None
) -> None:
    """Charge nothing of the customer's any more; an attempt that has begun goes on."""
    request = pb.RemovePaymentMethodRequest(customer_id=customer_id, if_match=tags_of(if_match))
    await calls.call(calls.payments.RemovePaymentMethod, request)


@get("/api/invoices/{invoice_id:str}/payments")
async def list_payment_attempts(calls: ApiCalls, invoice_id: FromPath[str]) -> PaymentAttempts:
    """List all attempts to have an invoice paid, oldest first, and when the next one is due."""
    request = pb.ListPaymentAttemptsRequest(invoice_id=invoice_id)
    return attempts_from_proto(await calls.call(calls.payments.ListPaymentAttempts, request))


@post("/api/invoices/{invoice_id:str}/collect", status_code=200)
async def collect_invoice(calls: ApiCalls, invoice_id: FromPath[str]) -> Collection:
    """Have an open invoice collected by the payment provider now, and again by its schedule.

    409 when it is paid, void, or just being paid, and when provider or payment method are missing.
    """
    request = pb.CollectInvoiceRequest(invoice_id=invoice_id)
    answer = await calls.call(calls.payments.CollectInvoice, request)
    return Collection(next_attempt_at=time_of(answer.next_attempt_time))


def _shown(method: pb.PaymentMethod) -> Response[PaymentMethod]:
    return Response(method_from_proto(method), headers=etag(method))


HANDLERS = [
    get_payment_method,
    set_payment_method,
    remove_payment_method,
    list_payment_attempts,
    collect_invoice,
]
