"""Proto messages of billing terms from and to the domain."""

from usageflow.invoicer.v1 import billing_terms_pb2 as pb

from services.invoicer import messages
from services.invoicer.charges import OneOffCharge
from services.invoicer.credit_notes import CreditNote
from services.invoicer.discounts import SubscriptionDiscount
from services.invoicer.exact import format_price
from services.invoicer.taxes import TaxRate, TaxRates
from services.invoicer.term_checks import ChargeInput, CreditNoteInput
from services.kit.errors import FieldProblem, InvalidArgumentError
from services.kit.etag import tagged
from services.kit.money import format_decimal, format_money

_TIMING = "CHARGE_TIMING_"


def charge_input(request: pb.CreateChargeRequest) -> ChargeInput:
    """A charge as asked for; a timing that nobody knows stays a number, to be refused."""
    number = request.timing or pb.CHARGE_TIMING_NEXT_INVOICE
    value = pb.ChargeTiming.DESCRIPTOR.values_by_number.get(number)
    return ChargeInput(
        customer_id=request.customer_id,
        description=request.description,
        unit_price=request.unit_price,
        quantity=request.quantity,
        currency=request.currency,
        subscription_id=request.subscription_id,
        timing=str(number) if value is None else value.name.removeprefix(_TIMING),
        idempotency_key=request.idempotency_key,
    )


def discount(found: SubscriptionDiscount) -> pb.SubscriptionDiscount:
    """A subscription's discount."""
    return pb.SubscriptionDiscount(
        id=found.id,
        subscription_id=found.subscription_id,
        discount=messages.discount(found.discount),
        start_time=messages.timestamp(found.start_time),
        end_time=messages.timestamp(found.end_time),
        create_time=messages.timestamp(found.create_time),
    )


def charge(found: OneOffCharge) -> pb.Charge:
    """A one-off charge, with its entity tag."""
    message = pb.Charge(
        id=found.id,
        customer_id=found.customer_id,
        subscription_id=found.subscription_id,
        description=found.description,
        quantity=format_decimal(found.quantity),
        unit_price=format_price(found.unit_price, found.currency),
        currency=found.currency,
        amount=format_money(found.amount, found.currency),
        timing=pb.ChargeTiming.Value(_TIMING + found.timing),
        invoice_id=found.invoice_id,
        create_time=messages.timestamp(found.create_time),
    )
    return tagged(message)


def tax_rate(found: TaxRate) -> pb.TaxRate:
    """A tax rate."""
    return pb.TaxRate(
        id=found.id,
        name=found.name,
        percent=format_decimal(found.percent),
        inclusive=found.inclusive,
        create_time=messages.timestamp(found.create_time),
    )


def assigned(found: TaxRates) -> pb.AssignedTaxRates:
    """Whose rates are which."""
    message = pb.AssignedTaxRates(
        customer_id=found.customer_id,
        rates=[tax_rate(rate) for rate in found.rates],
        inherited=found.inherited,
    )
    return tagged(message)


def assigned_ids(request: pb.AssignTaxRatesRequest) -> list[str] | None:
    """The rates to assign; None: the customer is to have none of his own."""
    if not request.inherit:
        return list(request.tax_rate_ids)
    if request.tax_rate_ids:
        message = "must be empty for a customer that is to have no rates of his own"
        raise InvalidArgumentError([FieldProblem("taxRateIds", message)])
    return None


def credit_note_input(request: pb.CreateCreditNoteRequest) -> CreditNoteInput:
    """A credit note as asked for."""
    return CreditNoteInput(
        invoice_id=request.invoice_id,
        reason=request.reason,
        lines=tuple((each.line, each.amount) for each in request.lines),
        refund_reference=request.refund_reference,
        idempotency_key=request.idempotency_key,
        refund_to_credits=request.refund_to_credits,
    )


def credit_note(found: CreditNote) -> pb.CreditNote:
    """A credit note with its lines."""
    draft = found.draft
    lines = [
        pb.CreditNoteLine(
            line=line.position,
            description=line.description,
            amount=format_money(line.amount, draft.currency),
        )
        for line in draft.lines
    ]
    return pb.CreditNote(
        id=found.id,
        number=found.number,
        invoice_id=draft.invoice_id,
        customer_id=draft.customer_id,
        currency=draft.currency,
        amount=format_money(draft.amount, draft.currency),
        reason=draft.reason,
        refund_reference=draft.refund_reference,
        lines=lines,
        changes=messages.lines_of(draft.changes, draft.currency),
        create_time=messages.timestamp(found.create_time),
        hash=found.hash,
    )
