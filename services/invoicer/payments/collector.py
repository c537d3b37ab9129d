"""Has open invoices paid by their organizations' providers; any number of replicas may.

An attempt is committed before the provider is called, and what came of it after. Whoever dies in
between leaves an attempt of which nobody knows what came of it: it is asked for again under the
same key, which the provider answers without charging twice, until it is known. Leases keep
replicas off each other's invoices; one that comes back after its lease has expired only asks the
provider the same again, and finds the outcome stored.

What is due, and when attempts are made, goes by the customer's time, which a test clock may show;
pauses until a provider is asked again are real.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from services.invoicer.billing_events import (
    PAYMENT_FAILED,
    PAYMENT_RETRY_SCHEDULED,
    PAYMENT_SUCCEEDED,
    payment_event,
)
from services.invoicer.domain import InvoiceStatus
from services.invoicer.payments.domain import (
    Attempt,
    AttemptState,
    Outcome,
    ProviderName,
)
from services.invoicer.payments.keys import ProviderKeys
from services.invoicer.payments.provider import Providers
from services.invoicer.payments.settling import settle_failed, settle_paid
from services.invoicer.repository import billing_settings, payments
from services.invoicer.repository.events import add_events
from services.invoicer.repository.payments import Claimed
from services.invoicer.service.locking import lock_invoice
from services.kit.database import Database
from services.kit.errors import DomainError, UnavailableError
from services.kit.waiting import happens

log = structlog.get_logger()

_OPEN = (InvoiceStatus.PENDING, InvoiceStatus.FAILED)
# Until what is not known is asked for again: twice as long each time.
UNKNOWN_PAUSE = timedelta(seconds=5)
UNKNOWN_PAUSE_MAX = timedelta(minutes=15)
# Debits take days; each look is one call. By a test clock that is advanced they are looked at as
# often as it stops, at most.
PROCESSING_PAUSE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class CollectorSettings:
    """`lease`: how long a replica keeps others off an invoice; `timeout_s`: one call to a provider;
    `batch_max`: invoices at once.
    """

    lease: timedelta
    timeout_s: float
    poll_s: float
    batch_max: int
    retry_days: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Begun:
    """An attempt that is committed. `again`: its provider may have been called for it."""

    attempt: Attempt
    number: str
    api_key: str
    again: bool


class Collector:
    """Collects what is due, then waits to be woken, or a little while. `on_commit` is called when
    it is known what came of an attempt.
    """

    def __init__(
        self,
        database: Database,
        providers: Providers,
        keys: ProviderKeys,
        settings: CollectorSettings,
        now: Callable[[], datetime],
        on_commit: Callable[[], None],
    ) -> None:
        self._database = database
        self._providers = providers
        self._keys = keys
        self._settings = settings
        self._now = now
        self._on_commit = on_commit
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There may be something to collect."""
        self._wake.set()

    async def run(self) -> None:
        """Collect until cancelled."""
        while True:
            self._wake.clear()
            try:
                while await self.collect_batch():
                    pass
            except UnavailableError as error:
                log.debug("collector_waits", error=error.message)
            await happens(self._wake, self._settings.poll_s)

    async def collect_batch(self) -> int:
        """Make one attempt for each of a batch of invoices that are due; how many were."""
        settings = self._settings
        async with self._database.transaction() as connection:
            claimed = await payments.claim(
                connection, self._now(), limit=settings.batch_max, lease=settings.lease
            )
        await asyncio.gather(*(self._collect(each) for each in claimed))
        return len(claimed)

    async def _collect(self, claimed: Claimed) -> None:
        try:
            begun = await self._begin(claimed)
            if begun is None:
                return
            outcome = await self._charge(begun)
            await self._settle(claimed, begun.attempt, outcome)
        except UnavailableError as error:
            log.info("payment_unknown", invoice_id=claimed.invoice_id, error=error.message)
            await self._postpone(claimed)
        except Exception:
            # A defect must not stop the others; the attempt stays unknown until it is asked again.
            log.exception("collecting_failed", invoice_id=claimed.invoice_id)
            await self._postpone(claimed)

    async def _begin(self, claimed: Claimed) -> _Begun | None:
        """Commit an attempt, or find the one that was begun; None: nothing is to be collected."""
        tenant, invoice_id = claimed.tenant, claimed.invoice_id
        async with self._database.transaction() as connection:
            locked = await lock_invoice(connection, tenant, invoice_id, self._now())
            invoice = locked.invoice
            settings = await billing_settings.get_settings(connection, tenant)
            attempts = await payments.attempts_of(connection, tenant, invoice_id)
            pending = attempts[-1] if attempts else None
            again = pending is not None and pending.state is AttemptState.PENDING
            method = await payments.get_method(connection, tenant, invoice.customer_id)
            collects = method is not None and settings.provider is method.provider
            is_due = invoice.status in _OPEN and invoice.amount_due > 0
            if not again and not (is_due and collects):
                await payments.stop(connection, tenant, invoice_id)
                return None
            if not settings.sealed_provider_key:
                raise UnavailableError("The organization's key of the provider is gone")
            api_key = self._keys.open(tenant, settings.sealed_provider_key)
            if again:
                assert pending is not None
                return _Begun(pending, invoice.number, api_key, again=True)
            attempt = Attempt(
                invoice_id=invoice_id,
                number=len(attempts) + 1,
                provider=ProviderName.STRIPE,
                method=method,
                amount=invoice.amount_due,
                currency=invoice.currency,
                state=AttemptState.PENDING,
                reference="",
                error_code="",
                error_message="",
                start_time=locked.now,
                end_time=None,
                real_start_time=self._now(),
            )
            await payments.insert_attempt(connection, tenant, attempt)
        return _Begun(attempt, invoice.number, api_key, again=False)

    async def _charge(self, begun: _Begun) -> Outcome:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                provider = await self._providers.of(begun.api_key)
                description = f"Invoice {begun.number}"
                return await provider.charge(begun.attempt, description, again=begun.again)
        except TimeoutError:
            raise UnavailableError("The payment provider does not answer") from None

    async def _settle(self, claimed: Claimed, attempt: Attempt, outcome: Outcome) -> None:
        """Store what came of an attempt and what follows from it, once."""
        tenant = claimed.tenant
        async with self._database.transaction() as connection:
            locked = await lock_invoice(connection, tenant, claimed.invoice_id, self._now())
            known = await payments.end_attempt(connection, tenant, attempt, outcome, locked.now)
            if not known:
                return
            if outcome.state is AttemptState.PENDING:
                later = locked.now + PROCESSING_PAUSE
                await payments.schedule(connection, tenant, claimed.invoice_id, later)
                return
            settings = await billing_settings.get_settings(connection, tenant)
            retry_days = settings.retry_days_or(self._settings.retry_days)
            succeeded = outcome.state is AttemptState.SUCCEEDED
            following = None
            if locked.invoice.status not in _OPEN:
                # Nothing else changes an invoice while an attempt is pending, so this is a defect.
                log.error("paid_what_is_not_open", invoice_id=claimed.invoice_id)
                await payments.stop(connection, tenant, claimed.invoice_id)
            elif succeeded:
                await settle_paid(connection, locked, retry_days)
            else:
                _, following = await settle_failed(connection, locked, retry_days)
            event_type = PAYMENT_SUCCEEDED if succeeded else PAYMENT_FAILED
            told = (tenant, locked.invoice, attempt, outcome, following)
            events = [payment_event(event_type, *told, locked.now)]
            if following is not None:
                events.append(payment_event(PAYMENT_RETRY_SCHEDULED, *told, locked.now))
            await add_events(connection, events)
        log.info(
            "payment_attempted",
            invoice_id=claimed.invoice_id,
            attempt=attempt.number,
            state=outcome.state.value,
            error_code=outcome.error_code,
        )
        self._on_commit()

    async def _postpone(self, claimed: Claimed) -> None:
        doublings = min(claimed.unknown_count, 10)
        pause = min(UNKNOWN_PAUSE * 2**doublings, UNKNOWN_PAUSE_MAX)
        try:
            async with self._database.transaction() as connection:
                await payments.postpone(connection, claimed, self._now() + pause)
        except DomainError as error:
            # The lease expires by itself.
            log.warning("postponing_failed", error=error.message)
