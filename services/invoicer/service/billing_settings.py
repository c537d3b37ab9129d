"""What organizations decide about their invoices and their payment."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.invoicer.billing_settings import BillingSettings, BillingSettingsChange, LateUsage
from services.invoicer.payments.domain import ProviderName
from services.invoicer.payments.keys import ProviderKeys, hint_of, is_stripe_key
from services.invoicer.repository import billing_settings
from services.invoicer.service.wakes import Wakes
from services.invoicer.tables import audit_outbox
from services.kit.audit import add_audit_event, audit_event, changes
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldChecks
from services.kit.etag import Expectation

CHANGED = "billing_settings.changed"


@dataclass(frozen=True, slots=True)
class UsualSettings:
    """What holds where an organization has not decided."""

    grace: timedelta
    retry_days: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SettingsInput:
    """What is to change; None stays as it is, an empty key is forgotten."""

    grace_s: int | None = None
    retry_days: tuple[int, ...] | None = None
    provider: ProviderName | None = None
    stripe_api_key: str | None = None
    late_usage: LateUsage | None = None


class BillingSettingsOf:
    """The settings, as they hold."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], datetime],
        wakes: Wakes,
        keys: ProviderKeys,
        usual: UsualSettings,
    ) -> None:
        self._database = database
        self._now = now
        self._wakes = wakes
        self._keys = keys
        self._usual = usual

    async def get_settings(self, tenant: TenantKey) -> BillingSettings:
        """What holds."""
        async with self._database.transaction() as connection:
            return self._holding(await billing_settings.get_settings(connection, tenant))

    async def update_settings(
        self,
        tenant: TenantKey,
        given: SettingsInput,
        *,
        by_key: str,
        expect: Expectation[BillingSettings] | None = None,
    ) -> BillingSettings:
        """Change what is given; the audit log tells. InvalidArgumentError, StaleError;
        PreconditionError when the installation can't keep a key.
        """
        change = self._change(tenant, given)
        async with self._database.transaction() as connection:
            before = await billing_settings.get_settings(connection, tenant, lock=True)
            if expect is not None:
                expect(self._holding(before))
            after = change.of(before)
            if after == before:
                return self._holding(before)
            await billing_settings.put_settings(connection, tenant, after, self._now())
            details = changes(_shown(self._holding(before)), _shown(self._holding(after)))
            if given.stripe_api_key is not None:
                details["stripeApiKeySet"] = bool(given.stripe_api_key)
            event = audit_event(tenant, CHANGED, key_id=by_key, details=details)
            await add_audit_event(connection, audit_outbox, event)
        self._wakes.scheduler()
        return self._holding(after)

    def _change(self, tenant: TenantKey, given: SettingsInput) -> BillingSettingsChange:
        key, sealed = given.stripe_api_key, None
        if key is not None:
            checks = FieldChecks()
            known = not key or is_stripe_key(key, tenant.mode)
            message = f"must begin with sk_{tenant.mode}_ or rk_{tenant.mode}_ in this mode"
            checks.require(known, "stripeApiKey", message)
            checks.done()
            sealed = (self._keys.seal(tenant, key), hint_of(key)) if key else (b"", "")
        return BillingSettingsChange(
            given.grace_s, given.retry_days, given.provider, sealed, given.late_usage
        )

    def _holding(self, settings: BillingSettings) -> BillingSettings:
        return replace(
            settings,
            grace=settings.grace_or(self._usual.grace),
            retry_days=settings.retry_days_or(self._usual.retry_days),
        )


def _shown(settings: BillingSettings) -> dict[str, object]:
    """With the names of the HTTP contract; of a key its end."""
    assert settings.grace is not None
    assert settings.retry_days is not None
    return {
        "graceSeconds": int(settings.grace.total_seconds()),
        "retryDays": list(settings.retry_days),
        "paymentProvider": settings.provider.value,
        "stripeApiKeyHint": settings.provider_key_hint or None,
        "lateUsage": settings.late_usage.value,
    }
