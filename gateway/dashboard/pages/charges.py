"""/dashboard/charges"""

from typing import Final

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.invoicer.v1 import billing_terms_pb2

from gateway.dashboard.forms import Form
from gateway.dashboard.visit import Visit, Visited, new_key
from gateway.shapes import billing_terms
from gateway.shapes.billing_terms import NewCharge
from services.kit.errors import DomainError

PAGE_ROWS: Final = 50
TIMINGS: Final = (
    ("NEXT_INVOICE", "On the next invoice of their subscription"),
    ("NOW", "On an invoice of its own, at once"),
)


@get("/dashboard/charges", include_in_schema=False)
async def list_charges(visit: Visited) -> Response[bytes]:
    """What is charged once, newest first."""
    customer_id = visit.request.query_params.get("customerId", "")
    return await _show(visit, Form([("customerId", customer_id), ("_key", new_key())]))


@post("/dashboard/charges", include_in_schema=False)
async def create_charge(visit: Visited) -> Response[bytes]:
    """Charge a customer once."""
    form = visit.form
    try:
        request = billing_terms.charge_to_proto(form.read(NewCharge), form.get("_key", ""))
        await visit.calls.call(visit.calls.terms.CreateCharge, request)
    except DomainError as error:
        form.refuse(error)
        return await _show(visit, form, 400)
    return visit.go("/dashboard/charges", "created")


@post("/dashboard/charges/{charge_id:str}/delete", include_in_schema=False)
async def delete_charge(visit: Visited, charge_id: FromPath[str]) -> Response[bytes]:
    """Take back one that waits for an invoice."""
    request = billing_terms_pb2.DeleteChargeRequest(
        charge_id=charge_id, if_match=visit.form.if_match
    )
    try:
        await visit.calls.call(visit.calls.terms.DeleteCharge, request)
    except DomainError as error:
        status = visit.form.refuse(error)
        return await _show(visit, visit.form, status)
    return visit.go("/dashboard/charges", "deleted")


async def _show(visit: Visit, form: Form, status: int = 200) -> Response[bytes]:
    query = visit.request.query_params
    request = billing_terms_pb2.ListChargesRequest(
        customer_id=query.get("customerId", ""),
        page_size=PAGE_ROWS,
        page_token=query.get("cursor", ""),
    )
    answer = await visit.calls.call(visit.calls.terms.ListCharges, request)
    return visit.page(
        "charges.html",
        status,
        form=form,
        timings=TIMINGS,
        charges=[billing_terms.charge_from_proto(each) for each in answer.charges],
        etags={each.id: each.etag for each in answer.charges},
        cursor=answer.next_page_token,
    )


HANDLERS = [list_charges, create_charge, delete_charge]
