"""How invoices are paid."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from usageflow.invoicer.v1 import payments_pb2 as pb

from gateway.shapes.common import Amount, name_of, time_of, time_or_none

PROVIDER = "PAYMENT_PROVIDER_"
_STATE = "PAYMENT_ATTEMPT_STATE_"
REFERENCE_CHARS_MAX = 200


class PaymentMethod(msgspec.Struct, rename="camel", kw_only=True):
    """What of a customer's is charged."""

    stripe_customer: Annotated[str, Meta(description='"cus_..."')]
    stripe_payment_method: Annotated[str, Meta(description='"pm_..."')]


class PaymentNote(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """What is known of a payment that was made elsewhere."""

    reference: Annotated[
        str,
        Meta(max_length=REFERENCE_CHARS_MAX, description="What it is called where it was made"),
    ] = ""


class PaymentAttempt(msgspec.Struct, rename="camel", kw_only=True):
    """One attempt to have an invoice paid; once it has ended it never changes."""

    number: int
    provider: Annotated[str, Meta(description="MANUAL: told by the organization; or STRIPE")]
    amount: Amount
    currency: str
    state: Annotated[
        str, Meta(description="PENDING: not known yet; then SUCCEEDED or FAILED for ever")
    ]
    reference: Annotated[str | None, Meta(description='The provider\'s ("pi_..."), or as told')]
    error_code: Annotated[
        str | None, Meta(description='The provider\'s, for example "insufficient_funds"')
    ]
    error_message: str | None
    started_at: datetime
    ended_at: datetime | None


class PaymentAttempts(msgspec.Struct, rename="camel", kw_only=True):
    """All attempts to have an invoice paid, oldest first."""

    data: list[PaymentAttempt]
    next_attempt_at: Annotated[datetime | None, Meta(description="null: none comes by itself")]


class Collection(msgspec.Struct, rename="camel", kw_only=True):
    """When an invoice is collected."""

    next_attempt_at: datetime


def method_to_proto(customer_id: str, method: PaymentMethod) -> pb.SetPaymentMethodRequest:
    """The request that sets it."""
    given: dict[str, Any] = msgspec.structs.asdict(method)
    return pb.SetPaymentMethodRequest(
        customer_id=customer_id, payment_method=pb.PaymentMethod(**given)
    )


def method_from_proto(message: pb.PaymentMethod) -> PaymentMethod:
    """The JSON of a payment method."""
    return PaymentMethod(
        stripe_customer=message.stripe_customer,
        stripe_payment_method=message.stripe_payment_method,
    )


def attempts_from_proto(message: pb.ListPaymentAttemptsResponse) -> PaymentAttempts:
    """The JSON of all attempts."""
    return PaymentAttempts(
        data=[_attempt(each) for each in message.attempts],
        next_attempt_at=time_or_none(message, "next_attempt_time"),
    )


def _attempt(message: pb.PaymentAttempt) -> PaymentAttempt:
    return PaymentAttempt(
        number=message.number,
        provider=name_of(pb.PaymentProvider, message.provider, PROVIDER),
        amount=message.amount,
        currency=message.currency,
        state=name_of(pb.PaymentAttemptState, message.state, _STATE),
        reference=message.reference or None,
        error_code=message.error_code or None,
        error_message=message.error_message or None,
        started_at=time_of(message.start_time),
        ended_at=time_or_none(message, "end_time"),
    )
