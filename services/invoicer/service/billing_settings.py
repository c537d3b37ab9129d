"""What organizations decide about their invoices."""

from collections.abc import Callable
from datetime import datetime, timedelta

from services.invoicer.billing_settings import BillingSettings, BillingSettingsChange
from services.invoicer.repository import billing_settings
from services.invoicer.service.wakes import Wakes
from services.invoicer.tables import audit_outbox
from services.kit.audit import add_audit_event, audit_event, changes
from services.kit.database import Database, TenantKey
from services.kit.etag import Expectation

CHANGED = "billing_settings.changed"


class BillingSettingsOf:
    """The settings, as they hold: what an organization has not decided is as the installation has
    it (`usual_grace`).
    """

    def __init__(
        self,
        database: Database,
        now: Callable[[], datetime],
        wakes: Wakes,
        *,
        usual_grace: timedelta,
    ) -> None:
        self._database = database
        self._now = now
        self._wakes = wakes
        self._usual_grace = usual_grace

    async def get_settings(self, tenant: TenantKey) -> BillingSettings:
        """What holds."""
        async with self._database.transaction() as connection:
            return self._holding(await billing_settings.get_settings(connection, tenant))

    async def update_settings(
        self,
        tenant: TenantKey,
        change: BillingSettingsChange,
        *,
        by_key: str,
        expect: Expectation[BillingSettings] | None = None,
    ) -> BillingSettings:
        """Change what is given; the audit log tells. InvalidArgumentError, StaleError."""
        async with self._database.transaction() as connection:
            before = await billing_settings.get_settings(connection, tenant, lock=True)
            if expect is not None:
                expect(self._holding(before))
            after = change.of(before)
            if after == before:
                return self._holding(before)
            await billing_settings.put_settings(connection, tenant, after, self._now())
            details = changes(_shown(self._holding(before)), _shown(self._holding(after)))
            event = audit_event(tenant, CHANGED, key_id=by_key, details=details)
            await add_audit_event(connection, audit_outbox, event)
        self._wakes.scheduler()
        return self._holding(after)

    def _holding(self, settings: BillingSettings) -> BillingSettings:
        return BillingSettings(grace=settings.grace_or(self._usual_grace))


def _shown(settings: BillingSettings) -> dict[str, object]:
    """With the names of the HTTP contract."""
    assert settings.grace is not None
    return {"graceSeconds": int(settings.grace.total_seconds())}
