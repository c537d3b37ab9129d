"""Translates between proto and domain what organizations decide about their invoices."""

from usageflow.invoicer.v1 import billing_settings_pb2 as pb
from usageflow.invoicer.v1.billing_settings_pb2_grpc import BillingSettingsServiceServicer

from services.invoicer.billing_settings import BillingSettings, LateUsage
from services.invoicer.payment_messages import provider_number, provider_of
from services.invoicer.service.billing_settings import BillingSettingsOf, SettingsInput
from services.kit.auth import require_scope
from services.kit.errors import FieldProblem, InvalidArgumentError
from services.kit.etag import expecting, tagged

_LATE_USAGES = {
    LateUsage.NEXT_INVOICE: pb.LATE_USAGE_NEXT_INVOICE,
    LateUsage.CREDIT_NOTE: pb.LATE_USAGE_CREDIT_NOTE,
}


class BillingSettingsServicer(BillingSettingsServiceServicer):
    """What callers may ask of the settings of their organization and mode."""

    def __init__(self, settings: BillingSettingsOf) -> None:
        self._settings = settings

    async def GetBillingSettings(
        self, request: pb.GetBillingSettingsRequest, context: object
    ) -> pb.GetBillingSettingsResponse:
        """The settings."""
        found = await self._settings.get_settings(require_scope("read").tenant)
        return pb.GetBillingSettingsResponse(settings=_message(found))

    async def UpdateBillingSettings(
        self, request: pb.UpdateBillingSettingsRequest, context: object
    ) -> pb.UpdateBillingSettingsResponse:
        """Change some of them."""
        principal = require_scope("admin")
        given = SettingsInput(
            grace_s=request.grace_seconds if request.HasField("grace_seconds") else None,
            retry_days=tuple(request.retry_days.days) if request.HasField("retry_days") else None,
            provider=provider_of(request.payment_provider)
            if request.HasField("payment_provider")
            else None,
            stripe_api_key=request.stripe_api_key if request.HasField("stripe_api_key") else None,
            late_usage=_late_usage(request.late_usage) if request.HasField("late_usage") else None,
        )
        changed = await self._settings.update_settings(
            principal.tenant,
            given,
            by_key=principal.actor_id,
            expect=expecting(request.if_match, _message),
        )
        return pb.UpdateBillingSettingsResponse(settings=_message(changed))


def _message(settings: BillingSettings) -> pb.BillingSettings:
    assert settings.grace is not None
    assert settings.retry_days is not None
    return tagged(
        pb.BillingSettings(
            grace_seconds=int(settings.grace.total_seconds()),
            retry_days=settings.retry_days,
            payment_provider=provider_number(settings.provider),
            stripe_api_key_hint=settings.provider_key_hint,
            late_usage=_LATE_USAGES[settings.late_usage],
        )
    )


def _late_usage(number: int) -> LateUsage:
    """The choice of a number; InvalidArgumentError."""
    for name, known in _LATE_USAGES.items():
        if known == number:
            return name
    message = f"must be one of {', '.join(LateUsage)}"
    raise InvalidArgumentError([FieldProblem("lateUsage", message)])
