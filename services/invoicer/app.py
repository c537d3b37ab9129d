"""Wires invoicer together."""

from datetime import timedelta
from functools import partial

from usageflow.accounts.v1 import accounts_pb2
from usageflow.aggregator.v1 import aggregator_pb2, quotas_pb2
from usageflow.ingest.v1 import counted_pb2
from usageflow.invoicer.v1 import (
    audit_pb2_grpc,
    billing_settings_pb2_grpc,
    billing_terms_pb2_grpc,
    budgets_pb2_grpc,
    credits_pb2_grpc,
    documents_pb2_grpc,
    invoicer_pb2_grpc,
    payments_pb2_grpc,
    simulation_pb2_grpc,
    subscription_changes_pb2_grpc,
    test_clocks_pb2_grpc,
)

from services.invoicer.advancer import Advancer
from services.invoicer.audit.servicer import AuditServicer
from services.invoicer.billing_events import CONSUMER
from services.invoicer.billing_settings_servicer import BillingSettingsServicer
from services.invoicer.budget_servicer import BudgetsServicer
from services.invoicer.budget_watcher import BudgetWatcher
from services.invoicer.change_servicer import SubscriptionChangesServicer
from services.invoicer.clock_servicer import ClocksServicer
from services.invoicer.clock_times import AccountsClockTimes
from services.invoicer.closer import Closer, ClosingSettings
from services.invoicer.credit_expiry import CreditExpiry
from services.invoicer.credit_servicer import CreditsServicer
from services.invoicer.customers_seen import (
    BATCH_MAX,
    DURABLE,
    INBOX_CONSUMER,
    CustomersSeenHandler,
)
from services.invoicer.document_servicer import DocumentsServicer
from services.invoicer.event_prices import EventPricedUsage, IngestAmounts
from services.invoicer.limit_teller import AggregatorLimits, LimitTeller
from services.invoicer.line_events import IngestEvents
from services.invoicer.payment_servicer import PaymentsServicer
from services.invoicer.payments.collector import Collector, CollectorSettings
from services.invoicer.payments.keys import ProviderKeys
from services.invoicer.payments.stripe_provider import StripeProviders
from services.invoicer.rendering.pdf import PdfRenderer
from services.invoicer.scheduler import Scheduler
from services.invoicer.service.billing_periods import BillingPeriods
from services.invoicer.service.billing_settings import BillingSettingsOf, UsualSettings
from services.invoicer.service.budgets import Budgets
from services.invoicer.service.charges import Charges
from services.invoicer.service.clocks import Clocks
from services.invoicer.service.credit_notes import CreditNotes
from services.invoicer.service.credits import Credits
from services.invoicer.service.customers import Customers
from services.invoicer.service.discounts import Discounts
from services.invoicer.service.documents import Documents
from services.invoicer.service.invoices import Invoices
from services.invoicer.service.line_events import LineEvents
from services.invoicer.service.payments import Payments
from services.invoicer.service.plans import Plans
from services.invoicer.service.revenue import Revenues
from services.invoicer.service.simulations import Simulations
from services.invoicer.service.subscription_changes import SubscriptionChanges
from services.invoicer.service.subscriptions import Subscriptions
from services.invoicer.service.taxes import Taxes
from services.invoicer.service.wakes import Wakes
from services.invoicer.servicer import InvoicerServicer
from services.invoicer.settings import LATE, InvoicerSettings
from services.invoicer.simulation_servicer import SimulationServicer
from services.invoicer.tables import audit_outbox, inbox, outbox
from services.invoicer.term_servicer import BillingTermsServicer
from services.invoicer.usage import AggregatorUsage
from services.invoicer.writer import InvoiceWriter
from services.kit import clock
from services.kit.audit import audit_relay
from services.kit.auth import KeyCache
from services.kit.database import Database, wake_after_commit
from services.kit.grpc_client import open_channel
from services.kit.grpc_server import GrpcServer
from services.kit.idempotency import Answers
from services.kit.inbox import serve_inbox
from services.kit.messaging import USAGE, Messaging
from services.kit.metrics import AggregatorMetrics
from services.kit.migrations import migrate
from services.kit.money import trap_inexact
from services.kit.outbox import OutboxRelay, TableOutbox
from services.kit.readiness import DatabaseCheck
from services.kit.runtime import Runtime

PACKAGE = "services.invoicer"
_ACCOUNTS = accounts_pb2.DESCRIPTOR.services_by_name["AccountsInternalService"]
_INGEST = counted_pb2.DESCRIPTOR.services_by_name["CountedEventsInternalService"]
_LIMITS = quotas_pb2.DESCRIPTOR.services_by_name["PlanLimitsInternalService"]
_AGGREGATOR = aggregator_pb2.DESCRIPTOR.services_by_name["AggregatorInternalService"]


async def main(settings: InvoicerSettings | None = None) -> None:
    """Run invoicer until it is asked to stop."""
    settings = settings or InvoicerSettings()
    trap_inexact()
    async with Runtime("invoicer", settings) as runtime:
        url = settings.database_url.get_secret_value()
        await migrate(url, PACKAGE)
        database = Database(
            url, pool_size=settings.database_pool_size, application_name="usageflow-invoicer"
        )
        runtime.on_stop("database", database.close)
        messaging = await Messaging.connect(settings.nats_url.get_secret_value(), "invoicer")
        runtime.on_stop("messaging", messaging.close)
        aggregator = open_channel(
            settings.aggregator_address,
            [_AGGREGATOR, _LIMITS],
        )
        runtime.on_stop("aggregator", aggregator.close)
        ingest = open_channel(settings.ingest_address, [_INGEST])
        runtime.on_stop("ingest", ingest.close)
        accounts = open_channel(
            settings.accounts_address,
            [_ACCOUNTS],
        )
        runtime.on_stop("accounts", accounts.close)
        keys = KeyCache(accounts, settings.internal_token, messaging)
        await keys.start()

        relay = OutboxRelay(TableOutbox(database, outbox), messaging, CONSUMER)
        usage = EventPricedUsage(
            AggregatorUsage(aggregator, settings.internal_token, settings.aggregator_timeout_s),
            IngestAmounts(ingest, settings.internal_token, settings.ingest_stream_timeout_s),
        )
        writer = InvoiceWriter(
            database,
            clock.now,
            relay.wake,
            writers_max=settings.invoice_writers_max,
            late_quiet=timedelta(seconds=settings.invoice_late_quiet_s),
            retry_days=settings.payment_retry_days,
        )
        closer = Closer(database, usage, writer, _closing_settings(settings), clock.now)
        expiry = CreditExpiry(database, clock.now, relay.wake, settings.credits_poll_s)
        provider_keys = ProviderKeys(settings.payment_secrets_keys)
        providers = StripeProviders(settings.payment_timeout_s, settings.stripe_api_base)
        runtime.on_stop("providers", providers.close)

        def settled() -> None:
            relay.wake()
            # A test clock may have waited for it.
            scheduler.wake()

        collector = Collector(
            database,
            providers,
            provider_keys,
            _collector_settings(settings),
            clock.now,
            settled,
        )

        async def collect() -> int:
            # A provider takes its time, which nobody else's periods wait for.
            collector.wake()
            return 0

        watcher = BudgetWatcher(
            database,
            usage,
            clock.now,
            relay.wake,
            late=LATE,
            check_s=settings.budget_check_s,
        )
        advancer = Advancer(
            database,
            AccountsClockTimes(accounts, settings.internal_token),
            timedelta(seconds=settings.invoice_grace_s),
            [expiry.expire, collect],
        )
        scheduler = Scheduler(closer, settings.invoice_poll_s, advancer)
        limits = AggregatorLimits(aggregator, settings.internal_token)
        teller = LimitTeller(database, limits, clock.now)

        def look() -> None:
            scheduler.wake()
            teller.wake()

        wakes = Wakes(partial(wake_after_commit, relay.wake), partial(wake_after_commit, look))
        invoices = Invoices(
            database,
            usage,
            clock.now,
            wakes,
            retry_days=settings.payment_retry_days,
            late=LATE,
        )
        subscriptions = Subscriptions(
            database, clock.now, wakes, retry_days=settings.payment_retry_days
        )
        metrics = AggregatorMetrics(
            aggregator, settings.internal_token, settings.aggregator_timeout_s
        )
        servicer = InvoicerServicer(
            Customers(database, clock.now),
            Plans(database, clock.now, metrics),
            subscriptions,
            invoices,
            Revenues(database, usage, clock.now, LATE),
            clock.now,
        )

        await serve_inbox(database, inbox, messaging, INBOX_CONSUMER)
        seen = messaging.consume(
            USAGE, DURABLE, CustomersSeenHandler(database).handle, batch_max=BATCH_MAX
        )
        runtime.spawn("customers_seen", seen.run)
        runtime.spawn("outbox", relay.run)
        runtime.spawn("audit", audit_relay(database, audit_outbox, messaging).run)
        runtime.spawn("scheduler", scheduler.run)
        runtime.spawn("credit_expiry", expiry.run)
        runtime.spawn("limits", teller.run)
        runtime.spawn("collector", collector.run)
        runtime.spawn("budgets", watcher.run)

        server = GrpcServer(settings, keys, DatabaseCheck(url), Answers(database))
        server.add(
            invoicer_pb2_grpc.add_InvoicerServiceServicer_to_server,
            servicer,
            "usageflow.invoicer.v1.InvoicerService",
        )
        server.add(
            billing_terms_pb2_grpc.add_BillingTermsServiceServicer_to_server,
            BillingTermsServicer(
                Discounts(database, clock.now),
                Charges(database, clock.now, wakes),
                Taxes(database, clock.now),
                CreditNotes(database, clock.now, wakes, retry_days=settings.payment_retry_days),
            ),
            "usageflow.invoicer.v1.BillingTermsService",
        )
        server.add(
            credits_pb2_grpc.add_CreditsServiceServicer_to_server,
            CreditsServicer(Credits(database, clock.now, wakes)),
            "usageflow.invoicer.v1.CreditsService",
        )
        events = IngestEvents(ingest, settings.internal_token, settings.ingest_timeout_s)
        changes = SubscriptionChanges(database, usage, clock.now, wakes, late=LATE)
        server.add(
            subscription_changes_pb2_grpc.add_SubscriptionChangesServiceServicer_to_server,
            SubscriptionChangesServicer(
                changes, subscriptions, BillingPeriods(database, clock.now), clock.now
            ),
            "usageflow.invoicer.v1.SubscriptionChangesService",
        )
        server.add(
            documents_pb2_grpc.add_DocumentsServiceServicer_to_server,
            DocumentsServicer(
                LineEvents(database, events), Documents(database, clock.now, PdfRenderer())
            ),
            "usageflow.invoicer.v1.DocumentsService",
        )
        server.add(
            simulation_pb2_grpc.add_SimulationServiceServicer_to_server,
            SimulationServicer(Simulations(database, usage, clock.now, metrics)),
            "usageflow.invoicer.v1.SimulationService",
        )
        server.add(
            test_clocks_pb2_grpc.add_TestClocksServiceServicer_to_server,
            ClocksServicer(Clocks(database, clock.now, wakes)),
            "usageflow.invoicer.v1.TestClocksService",
        )
        server.add(
            audit_pb2_grpc.add_AuditInternalServiceServicer_to_server,
            AuditServicer(database),
            "usageflow.invoicer.v1.AuditInternalService",
        )
        server.add(
            billing_settings_pb2_grpc.add_BillingSettingsServiceServicer_to_server,
            BillingSettingsServicer(
                BillingSettingsOf(
                    database,
                    clock.now,
                    wakes,
                    provider_keys,
                    UsualSettings(
                        timedelta(seconds=settings.invoice_grace_s), settings.payment_retry_days
                    ),
                )
            ),
            "usageflow.invoicer.v1.BillingSettingsService",
        )
        server.add(
            payments_pb2_grpc.add_PaymentsServiceServicer_to_server,
            PaymentsServicer(
                Payments(database, clock.now, partial(wake_after_commit, collector.wake))
            ),
            "usageflow.invoicer.v1.PaymentsService",
        )
        server.add(
            budgets_pb2_grpc.add_BudgetsServiceServicer_to_server,
            BudgetsServicer(Budgets(database, clock.now, watcher.wake)),
            "usageflow.invoicer.v1.BudgetsService",
        )
        await server.start()
        runtime.on_stop("grpc", server.stop)
        await runtime.wait()


def _closing_settings(settings: InvoicerSettings) -> ClosingSettings:
    return ClosingSettings(
        grace=timedelta(seconds=settings.invoice_grace_s),
        late=LATE,
        lease=timedelta(seconds=settings.invoice_lease_s),
        pause=timedelta(seconds=settings.invoice_retry_s),
        chunk_max=settings.invoice_chunk_max,
        batch_max=settings.invoice_batch_max,
    )


def _collector_settings(settings: InvoicerSettings) -> CollectorSettings:
    return CollectorSettings(
        lease=timedelta(seconds=settings.payment_lease_s),
        timeout_s=settings.payment_timeout_s,
        poll_s=settings.invoice_poll_s,
        batch_max=settings.payment_batch_max,
        retry_days=settings.payment_retry_days,
    )
