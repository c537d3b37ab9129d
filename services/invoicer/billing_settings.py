"""What an organization decides about its invoices and their payment, in each mode. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from itertools import pairwise

from services.invoicer.payments.domain import RETRIES_MAX, RETRY_DAY_MAX, ProviderName
from services.kit.errors import FieldChecks

GRACE_MAX = timedelta(hours=72)


class LateUsage(StrEnum):
    """How a period that is invoiced and costs less after all is corrected: by lines of the next
    invoice, or by a credit note of its own. One that costs more is on the next invoice either way.
    """

    NEXT_INVOICE = "NEXT_INVOICE"
    CREDIT_NOTE = "CREDIT_NOTE"


@dataclass(frozen=True, slots=True)
class BillingSettings:
    """`grace`: how long a period that is over waits for late events. `retry_days`: on which days
    after the first failure a payment is tried again. None: as the installation has it.

    `sealed_provider_key` and `provider_key_hint` are of the organization's key, None and "": none.
    """

    grace: timedelta | None = None
    retry_days: tuple[int, ...] | None = None
    provider: ProviderName = ProviderName.MANUAL
    sealed_provider_key: bytes | None = None
    provider_key_hint: str = ""
    late_usage: LateUsage = LateUsage.NEXT_INVOICE

    def grace_or(self, usual: timedelta) -> timedelta:
        """`usual` where the organization has not decided."""
        return usual if self.grace is None else self.grace

    def retry_days_or(self, usual: tuple[int, ...]) -> tuple[int, ...]:
        """`usual` where the organization has not decided."""
        return usual if self.retry_days is None else self.retry_days


NO_SETTINGS = BillingSettings()


@dataclass(frozen=True, slots=True)
class BillingSettingsChange:
    """What is to change; None stays as it is. `provider_key`: sealed, with its hint; (b"", ""):
    it is forgotten.
    """

    grace_s: int | None = None
    retry_days: tuple[int, ...] | None = None
    provider: ProviderName | None = None
    provider_key: tuple[bytes, str] | None = None
    late_usage: LateUsage | None = None

    def of(self, settings: BillingSettings) -> BillingSettings:
        """The settings with the change made. InvalidArgumentError names all that is wrong."""
        checks = FieldChecks()
        changed = settings
        if self.grace_s is not None:
            most = int(GRACE_MAX.total_seconds())
            fits = 0 <= self.grace_s <= most
            checks.require(fits, "graceSeconds", f"must be from 0 to {most:,} (72 hours)")
            changed = replace(changed, grace=timedelta(seconds=self.grace_s if fits else 0))
        if self.retry_days is not None:
            check_retry_days(checks, self.retry_days)
            changed = replace(changed, retry_days=self.retry_days)
        if self.provider is not None:
            changed = replace(changed, provider=self.provider)
        if self.provider_key is not None:
            sealed, hint = self.provider_key
            changed = replace(changed, sealed_provider_key=sealed or None, provider_key_hint=hint)
        if self.late_usage is not None:
            changed = replace(changed, late_usage=self.late_usage)
        keyed = changed.provider is ProviderName.MANUAL or bool(changed.sealed_provider_key)
        checks.require(keyed, "stripeApiKey", "must be given while Stripe collects")
        checks.done()
        return changed


def check_retry_days(checks: FieldChecks, days: Sequence[int]) -> None:
    """Note what is wrong with them."""
    few = len(days) <= RETRIES_MAX
    between = all(1 <= day <= RETRY_DAY_MAX for day in days)
    ascending = all(earlier < later for earlier, later in pairwise(days))
    message = f"must be up to {RETRIES_MAX} days from 1 to {RETRY_DAY_MAX}, ascending"
    checks.require(few and between and ascending, "retryDays", message)
