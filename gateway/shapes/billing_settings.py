"""What an organization decides about its invoices and their payment."""

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType
from usageflow.invoicer.v1 import billing_settings_pb2 as pb
from usageflow.invoicer.v1 import payments_pb2

from gateway.shapes.common import name_of, number_of
from gateway.shapes.payments import PROVIDER

GRACE_S_MAX: Final = 259_200
GraceSeconds: TypeAlias = Annotated[
    int,
    Meta(
        ge=0,
        le=GRACE_S_MAX,
        description="How long a period that is over waits for late events before it is invoiced",
    ),
]
RetryDays: TypeAlias = Annotated[
    list[Annotated[int, Meta(ge=1, le=60)]],
    Meta(
        max_length=10,
        description="On which days after the first failure a payment is tried again, ascending; "
        "when it fails after the last, the subscription is suspended until the invoice is paid",
    ),
]
ProviderName: TypeAlias = Literal["MANUAL", "STRIPE"]
Provider: TypeAlias = Annotated[
    ProviderName,
    Meta(description="Who collects: MANUAL: you do, and tell; STRIPE: UsageFlow, and takes a key"),
]
LateUsageName: TypeAlias = Literal["NEXT_INVOICE", "CREDIT_NOTE"]
LATE_USAGE: Final = "LATE_USAGE_"
LateUsage: TypeAlias = Annotated[
    LateUsageName,
    Meta(
        description="How an invoiced period that costs less after all is corrected: by lines of "
        "the next invoice, or by a credit note of its own. One that costs more is on the next "
        "invoice"
    ),
]


class BillingSettings(msgspec.Struct, rename="camel", kw_only=True):
    """The settings; what was never set is as the installation has it."""

    grace_seconds: GraceSeconds
    retry_days: RetryDays
    payment_provider: Annotated[str, Meta(description="MANUAL or STRIPE")]
    stripe_api_key_hint: Annotated[
        str | None, Meta(description="The end of the key; null: there is none")
    ]
    late_usage: Annotated[str, Meta(description="NEXT_INVOICE or CREDIT_NOTE")]


class BillingSettingsChange(msgspec.Struct, rename="camel", kw_only=True):
    """What to change; what is left out stays."""

    grace_seconds: GraceSeconds | UnsetType = UNSET
    retry_days: RetryDays | UnsetType = UNSET
    payment_provider: Provider | UnsetType = UNSET
    stripe_api_key: (
        Annotated[
            str,
            Meta(
                description="A secret or restricted key of Stripe of the mode; it is never shown "
                "again. Empty: it is forgotten"
            ),
        ]
        | UnsetType
    ) = UNSET
    late_usage: LateUsage | UnsetType = UNSET


def change_to_proto(change: BillingSettingsChange) -> pb.UpdateBillingSettingsRequest:
    """The request that changes what was sent."""
    request = pb.UpdateBillingSettingsRequest()
    if change.grace_seconds is not UNSET:
        request.grace_seconds = change.grace_seconds
    if change.retry_days is not UNSET:
        request.retry_days.CopyFrom(pb.RetryDays(days=change.retry_days))
    if change.payment_provider is not UNSET:
        number = number_of(payments_pb2.PaymentProvider, change.payment_provider, PROVIDER)
        request.payment_provider = number
    if change.stripe_api_key is not UNSET:
        request.stripe_api_key = change.stripe_api_key
    if change.late_usage is not UNSET:
        request.late_usage = number_of(pb.LateUsage, change.late_usage, LATE_USAGE)
    return request


def from_proto(message: pb.BillingSettings) -> BillingSettings:
    """The JSON of the settings."""
    return BillingSettings(
        grace_seconds=message.grace_seconds,
        retry_days=list(message.retry_days),
        payment_provider=name_of(payments_pb2.PaymentProvider, message.payment_provider, PROVIDER),
        stripe_api_key_hint=message.stripe_api_key_hint or None,
        late_usage=name_of(pb.LateUsage, message.late_usage, LATE_USAGE),
    )
