"""What an organization decides about its invoices, in each mode. Pure."""

from dataclasses import dataclass
from datetime import timedelta

from services.kit.errors import FieldChecks

GRACE_MAX = timedelta(hours=72)


@dataclass(frozen=True, slots=True)
class BillingSettings:
    """`grace`: how long a period that is over waits for late events; None: as the installation has
    it.
    """

    grace: timedelta | None = None

    def grace_or(self, usual: timedelta) -> timedelta:
        """`usual` where the organization has not decided."""
        return usual if self.grace is None else self.grace


NO_SETTINGS = BillingSettings()


@dataclass(frozen=True, slots=True)
class BillingSettingsChange:
    """What is to change; None stays as it is."""

    grace_s: int | None = None

    def of(self, settings: BillingSettings) -> BillingSettings:
        """The settings with the change made. InvalidArgumentError names all that is wrong."""
        checks = FieldChecks()
        most = int(GRACE_MAX.total_seconds())
        fits = self.grace_s is None or 0 <= self.grace_s <= most
        checks.require(fits, "graceSeconds", f"must be from 0 to {most:,} (72 hours)")
        checks.done()
        if self.grace_s is None:
            return settings
        return BillingSettings(timedelta(seconds=self.grace_s))
