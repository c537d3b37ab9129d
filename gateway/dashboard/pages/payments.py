"""/dashboard/customers/{id}/payment-method"""

from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.invoicer.v1 import invoicer_pb2, payments_pb2

from gateway.dashboard import questions
from gateway.dashboard.forms import ETAG, Form
from gateway.dashboard.visit import Visit, Visited
from gateway.shapes import customers, payments
from gateway.shapes.payments import PaymentMethod
from services.kit.errors import DomainError, StaleError


@get("/dashboard/customers/{customer_id:str}/payment-method", include_in_schema=False)
async def show_payment_method(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """What of the customer's is charged."""
    return await _page(visit, customer_id, await _filled(visit, customer_id))


async def _filled(visit: Visit, customer_id: str) -> Form:
    """The form with what is set; empty when there is none, or no such customer, which the page then
    says.
    """
    request = payments_pb2.GetPaymentMethodRequest(customer_id=customer_id)
    calls = visit.calls
    found = await questions.found(calls.call(calls.payments.GetPaymentMethod, request))
    if found is None:
        return Form()
    known = payments.method_from_proto(found.payment_method)
    pairs = [
        ("stripeCustomer", known.stripe_customer),
        ("stripePaymentMethod", known.stripe_payment_method),
        (ETAG, found.payment_method.etag),
    ]
    return Form(pairs)


@post("/dashboard/customers/{customer_id:str}/payment-method", include_in_schema=False)
async def set_payment_method(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """Charge this from now on."""
    try:
        request = payments.method_to_proto(customer_id, visit.form.read(PaymentMethod))
        if not visit.form.if_match:
            # Where the page showed none there must be none.
            visit.form.seen((await _filled(visit, customer_id)).get(ETAG, ""))
        request.if_match.extend(visit.form.if_match)
        await visit.calls.call(visit.calls.payments.SetPaymentMethod, request)
    except StaleError:
        now = await _filled(visit, customer_id)
        return await _page(visit, customer_id, visit.form.outdated(now), 412)
    except DomainError as error:
        visit.form.refuse(error)
        return await _page(visit, customer_id, visit.form, 400)
    return visit.go(_path(customer_id), "saved")


@post("/dashboard/customers/{customer_id:str}/payment-method/remove", include_in_schema=False)
async def remove_payment_method(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """Charge it no more."""
    request = payments_pb2.RemovePaymentMethodRequest(
        customer_id=customer_id, if_match=visit.form.if_match
    )
    try:
        await visit.calls.call(visit.calls.payments.RemovePaymentMethod, request)
    except StaleError as error:
        form = await _filled(visit, customer_id)
        return await _page(visit, customer_id, form, form.refuse(error))
    return visit.go(_path(customer_id), "deleted")


async def _page(visit: Visit, customer_id: str, form: Form, status: int = 200) -> Response[bytes]:
    request = invoicer_pb2.GetCustomerRequest(customer_id=customer_id)
    answer = await visit.calls.call(visit.calls.invoicer.GetCustomer, request)
    customer = customers.from_proto(answer.customer)
    return visit.page("payment_method.html", status, customer=customer, form=form)


def _path(customer_id: str) -> str:
    return f"/dashboard/customers/{quote(customer_id, safe='')}/payment-method"


HANDLERS = [show_payment_method, set_payment_method, remove_payment_method]
