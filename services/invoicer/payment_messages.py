"""From the domain of payments to proto, and back."""

from usageflow.invoicer.v1 import payments_pb2 as pb

from services.invoicer.messages import timestamp
from services.invoicer.payments.domain import Attempt, AttemptState, PaymentMethod, ProviderName
from services.kit.errors import FieldProblem, InvalidArgumentError
from services.kit.etag import tagged
from services.kit.money import format_money

_PROVIDERS = {
    ProviderName.MANUAL: pb.PAYMENT_PROVIDER_MANUAL,
    ProviderName.STRIPE: pb.PAYMENT_PROVIDER_STRIPE,
}
_STATES = {
    AttemptState.PENDING: pb.PAYMENT_ATTEMPT_STATE_PENDING,
    AttemptState.SUCCEEDED: pb.PAYMENT_ATTEMPT_STATE_SUCCEEDED,
    AttemptState.FAILED: pb.PAYMENT_ATTEMPT_STATE_FAILED,
}


def provider_number(name: ProviderName) -> pb.PaymentProvider.ValueType:
    """The number of a provider."""
    return _PROVIDERS[name]


def provider_of(number: int) -> ProviderName:
    """The provider of a number; InvalidArgumentError."""
    for name, known in _PROVIDERS.items():
        if known == number:
            return name
    message = f"must be one of {', '.join(ProviderName)}"
    raise InvalidArgumentError([FieldProblem("paymentProvider", message)])


def attempt(found: Attempt) -> pb.PaymentAttempt:
    """The message of an attempt."""
    return pb.PaymentAttempt(
        number=found.number,
        provider=provider_number(found.provider),
        amount=format_money(found.amount, found.currency),
        currency=found.currency,
        state=_STATES[found.state],
        reference=found.reference,
        error_code=found.error_code,
        error_message=found.error_message,
        start_time=timestamp(found.start_time),
        end_time=timestamp(found.end_time),
    )


def method(found: PaymentMethod) -> pb.PaymentMethod:
    """The message of a payment method, with its entity tag."""
    return tagged(
        pb.PaymentMethod(
            stripe_customer=found.provider_customer, stripe_payment_method=found.provider_method
        )
    )
