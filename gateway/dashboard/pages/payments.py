"""/dashboard/customers/{id}/payment-method"""

from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.invoicer.v1 import invoicer_pb2, payments_pb2

from gateway.dashboard.forms import Form
from gateway.dashboard.visit import Visit, Visited
from gateway.shapes import customers, payments
from gateway.shapes.payments import PaymentMethod
from services.kit.errors import DomainError, NotFoundError


@get("/dashboard/customers/{customer_id:str}/payment-method", include_in_schema=False)
async def show_payment_method(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """What of the customer's is charged."""
    request = payments_pb2.GetPaymentMethodRequest(customer_id=customer_id)
    pairs = []
    try:
        answer = await visit.calls.call(visit.calls.payments.GetPaymentMethod, request)
    except NotFoundError:
        pass  # there is none, or no such customer, which the page then says
    else:
        known = payments.method_from_proto(answer.payment_method)
        pairs = [
            ("stripeCustomer", known.stripe_customer),
            ("stripePaymentMethod", known.stripe_payment_method),
        ]
    return await _page(visit, customer_id, Form(pairs))


@post("/dashboard/customers/{customer_id:str}/payment-method", include_in_schema=False)
async def set_payment_method(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """Charge this from now on."""
    try:
        request = payments.method_to_proto(customer_id, visit.form.read(PaymentMethod))
        await visit.calls.call(visit.calls.payments.SetPaymentMethod, request)
    except DomainError as error:
        visit.form.refuse(error)
        return await _page(visit, customer_id, visit.form, 400)
    return visit.go(_path(customer_id), "saved")


@post("/dashboard/customers/{customer_id:str}/payment-method/remove", include_in_schema=False)
async def remove_payment_method(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """Charge it no more."""
    request = payments_pb2.RemovePaymentMethodRequest(customer_id=customer_id)
    await visit.calls.call(visit.calls.payments.RemovePaymentMethod, request)
    return visit.go(_path(customer_id), "deleted")


async def _page(visit: Visit, customer_id: str, form: Form, status: int = 200) -> Response[bytes]:
    request = invoicer_pb2.GetCustomerRequest(customer_id=customer_id)
    answer = await visit.calls.call(visit.calls.invoicer.GetCustomer, request)
    customer = customers.from_proto(answer.customer)
    return visit.page("payment_method.html", status, customer=customer, form=form)


def _path(customer_id: str) -> str:
    return f"/dashboard/customers/{quote(customer_id, safe='')}/payment-method"


HANDLERS = [show_payment_method, set_payment_method, remove_payment_method]
