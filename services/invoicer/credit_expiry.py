"""Ends grants of prepaid credit that have expired: what is left of them leaves the wallet.

They pay nothing from the instant on at which they expire; the ledger says so a little later. Who is
on a test clock has credit by its time. Any number of replicas may run this: what one has locked the
others leave to it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import structlog

from services.invoicer.billing_events import BillingEvent, credits_expired_event
from services.invoicer.clocks import now_of
from services.invoicer.credit_use import move
from services.invoicer.credits import expiries
from services.invoicer.exact import subtract
from services.invoicer.repository import clocks, ledger
from services.invoicer.repository.events import add_events
from services.kit.database import Database
from services.kit.errors import UnavailableError

log = structlog.get_logger()

# Of one transaction.
GRANTS_MAX = 100
# A round ends at most 100,000 grants; what is left waits for the next.
ROUNDS_MAX = 1_000


class CreditExpiry:
    """The loop. `on_commit` is called when there is something to tell."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], datetime],
        on_commit: Callable[[], None],
        poll_s: float,
    ) -> None:
        self._database = database
        self._now = now
        self._on_commit = on_commit
        self._poll_s = poll_s

    async def run(self) -> None:
        """End grants until cancelled."""
        while True:
            try:
                for _ in range(ROUNDS_MAX):
                    if not await self.expire():
                        break
            except UnavailableError as error:
                log.debug("credit_expiry_waits", error=error.message)
            except Exception:
                log.exception("credit_expiry_failed")
            await asyncio.sleep(self._poll_s)

    async def expire(self) -> int:
        """End some of the grants that have expired; how many wallets that concerned."""
        async with self._database.transaction() as connection:
            claimed = await ledger.claim_expired(connection, self._now(), GRANTS_MAX)
            for tenant, wallet in claimed:
                clock = await clocks.clock_of(connection, tenant, wallet.customer_id)
                now = now_of(clock, self._now())
                owner = (wallet.customer_id, wallet.currency)
                grants = await ledger.open_grants(connection, tenant, [owner])
                over = [each for each in grants if each.is_over(now)]
                movements = expiries(over, now)
                await move(connection, tenant, [wallet], movements, now)
                events: list[BillingEvent] = []
                left = wallet
                for grant in over:
                    balance = subtract(left.balance, grant.balance)
                    left = replace(left, balance=balance, sequence=left.sequence + 1)
                    events.append(credits_expired_event(tenant, grant, left, now))
                await add_events(connection, events)
        if claimed:
            log.info("credits_expired", wallets=len(claimed))
            self._on_commit()
        return len(claimed)
