"""The periods of subscriptions, for whoever wants to see usage as it is billed."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime

from services.invoicer.billing_periods import periods_between
from services.invoicer.periods import QUARTER_HOUR, Period, quarter_hour_of
from services.invoicer.service.subscriptions import require_subscription
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldChecks

PERIODS_MAX = 1_000
# Of which usage can be asked; they bound how many periods are looked through.
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


class BillingPeriods:
    """Tells periods."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    async def list_periods(
        self,
        tenant: TenantKey,
        subscription_id: str,
        start: datetime | None,
        end: datetime | None,
    ) -> list[Period]:
        """Those that lie, in part at least, between `start` (None: now) and `end` (None: now).

        NotFoundError, InvalidArgumentError.
        """
        async with self._database.transaction() as connection:
            subscription = await require_subscription(connection, tenant, subscription_id)
        now = subscription.now(self._now())
        checks = FieldChecks()
        for name, instant in (("from", start), ("to", end)):
            right = instant is None or EARLIEST <= instant <= LATEST
            checks.require(right, name, f"must be from {EARLIEST:%Y} to {LATEST:%Y}")
        checks.done()
        begin = start or now
        until = end or quarter_hour_of(max(now, begin)) + QUARTER_HOUR
        checks.require(begin < until, "from", "must be before to")
        checks.done()
        found = list(itertools.islice(periods_between(subscription, begin, until), PERIODS_MAX + 1))
        few = len(found) <= PERIODS_MAX
        checks.require(few, "to", f"must leave at most {PERIODS_MAX:,} periods after from")
        checks.done()
        return found
