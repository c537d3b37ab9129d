"""/api/invoices/{id}/credit-notes and /api/credit-notes"""

from litestar import Response, get, post
from litestar.params import FromPath, JSONBody
from usageflow.invoicer.v1 import billing_terms_pb2 as pb

from gateway.calls import ApiCalls
from gateway.idempotency import IdempotencyKey, key_of, replayed_headers
from gateway.query import Asked, query
from gateway.shapes.credit_notes import (
    CreditNote,
    CreditNotePage,
    CreditNotesQuery,
    NewCreditNote,
    from_proto,
    to_proto,
)


@post("/api/invoices/{invoice_id:str}/credit-notes")
async def create_credit_note(
    calls: ApiCalls,
    invoice_id: FromPath[str],
    data: JSONBody[NewCreditNote],
    idempotency_key: IdempotencyKey = None,
) -> Response[CreditNote]:
    """Credit lines of an invoice, or all that is left of it, with their taxes.

    Of a paid invoice tell how it was paid back; an open one of which nothing is due then is PAID.
    The same Idempotency-Key with the same content answers with the credit note that is there, and
    `Idempotent-Replayed: true`; with other: 409.
    """
    request = to_proto(invoice_id, data, key_of(idempotency_key))
    answer = await calls.call(calls.terms.CreateCreditNote, request)
    return Response(
        from_proto(answer.credit_note),
        status_code=201,
        headers=replayed_headers(answer.replayed),
    )


@get("/api/credit-notes", dependencies=query(CreditNotesQuery))
async def list_credit_notes(calls: ApiCalls, asked: Asked[CreditNotesQuery]) -> CreditNotePage:
    """List credit notes, newest first."""
    request = pb.ListCreditNotesRequest(
        customer_id=asked.customer_id,
        invoice_id=asked.invoice_id,
        page_size=asked.limit,
        page_token=asked.cursor,
    )
    answer = await calls.call(calls.terms.ListCreditNotes, request)
    return CreditNotePage(
        data=[from_proto(note) for note in answer.credit_notes],
        next_cursor=answer.next_page_token or None,
    )


@get("/api/credit-notes/{credit_note_id:str}")
async def get_credit_note(calls: ApiCalls, credit_note_id: FromPath[str]) -> CreditNote:
    """One credit note."""
    request = pb.GetCreditNoteRequest(credit_note_id=credit_note_id)
    return from_proto((await calls.call(calls.terms.GetCreditNote, request)).credit_note)


HANDLERS = [create_credit_note, list_credit_notes, get_credit_note]
