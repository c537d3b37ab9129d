"""What an organization decides about its invoices."""

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType
from usageflow.invoicer.v1 import billing_settings_pb2 as pb

GRACE_S_MAX: Final = 259_200
GraceSeconds: TypeAlias = Annotated[
    int,
    Meta(
        ge=0,
        le=GRACE_S_MAX,
        description="How long a period that is over waits for late events before it is invoiced",
    ),
]


class BillingSettings(msgspec.Struct, rename="camel", kw_only=True):
    """The settings; what was never set is as the installation has it."""

    grace_seconds: GraceSeconds


class BillingSettingsChange(msgspec.Struct, rename="camel", kw_only=True):
    """What to change; what is left out stays."""

    grace_seconds: GraceSeconds | UnsetType = UNSET


def change_to_proto(change: BillingSettingsChange) -> pb.UpdateBillingSettingsRequest:
    """The request that changes what was sent."""
    request = pb.UpdateBillingSettingsRequest()
    if change.grace_seconds is not UNSET:
        request.grace_seconds = change.grace_seconds
    return request


def from_proto(message: pb.BillingSettings) -> BillingSettings:
    """The JSON of the settings."""
    return BillingSettings(grace_seconds=message.grace_seconds)
