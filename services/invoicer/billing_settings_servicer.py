"""Translates between proto and domain what organizations decide about their invoices."""

from usageflow.invoicer.v1 import billing_settings_pb2 as pb
from usageflow.invoicer.v1.billing_settings_pb2_grpc import BillingSettingsServiceServicer

from services.invoicer.billing_settings import BillingSettings
from services.invoicer.payment_messages import provider_number, provider_of
from services.invoicer.service.billing_settings import BillingSettingsOf, SettingsInput
from services.kit.auth import require_scope
from services.kit.etag import expecting, tagged


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
        )
    )
