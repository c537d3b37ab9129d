"""Wires aggregator together; nothing else."""

from usageflow.accounts.v1 import accounts_pb2
from usageflow.aggregator.v1 import (
    aggregator_pb2_grpc,
    audit_pb2_grpc,
    live_pb2_grpc,
    quotas_pb2_grpc,
)

from services.aggregator.activity import Activities
from services.aggregator.audit.servicer import AuditServicer
from services.aggregator.folder import GATHER_S, MESSAGES_MAX, Folder
from services.aggregator.live.changes import UsageChanges
from services.aggregator.live.servicer import LiveUsageServicer
from services.aggregator.live.watching import LiveUsage
from services.aggregator.maintenance import Maintenance
from services.aggregator.metric_service import Metrics
from services.aggregator.quotas import thresholds
from services.aggregator.quotas.checking import QuotaChecks
from services.aggregator.quotas.plan_limits import PlanLimits
from services.aggregator.quotas.plan_limits_servicer import PlanLimitsServicer
from services.aggregator.quotas.service import Quotas, Reservations
from services.aggregator.quotas.servicer import QuotaServicer
from services.aggregator.rebuilds.rebuilder import Rebuilder
from services.aggregator.rebuilds.source import HISTORY_TIMEOUT_S, IngestHistory
from services.aggregator.reconciliation.reconciler import Reconciler
from services.aggregator.reconciliation.repair import Repair
from services.aggregator.reconciliation.source import ACCEPTED_TIMEOUT_S, IngestAccepted
from services.aggregator.reconciliation.standing import Standings
from services.aggregator.recounter import RECOUNT_TIMEOUT_S, Recounter
from services.aggregator.replay import IngestReplay
from services.aggregator.roller import Roller
from services.aggregator.servicer import AggregatorInternalServicer, AggregatorServicer
from services.aggregator.settings import AggregatorSettings
from services.aggregator.tables import audit_outbox, billing_outbox, inbox, outbox
from services.aggregator.token_wait import TokenWait
from services.aggregator.usage_service import UsageAnswers
from services.aggregator.watermark import IngestWatermark
from services.kit.audit import audit_relay
from services.kit.auth import KeyCache
from services.kit.database import Database
from services.kit.grpc_client import open_channel
from services.kit.grpc_server import GrpcServer
from services.kit.idempotency import Answers
from services.kit.inbox import serve_inbox
from services.kit.messaging import EVENTS, Messaging
from services.kit.migrations import migrate
from services.kit.outbox import OutboxRelay, TableOutbox
from services.kit.readiness import DatabaseCheck
from services.kit.runtime import Runtime

NAME = "aggregator"
# A rebuild of few events has ended by then: whoever changes a definition is answered with the end.
REBUILD_WAIT_S = 3.0


async def main() -> None:
    """Run until asked to stop."""
    settings = AggregatorSettings()
    async with Runtime(NAME, settings) as runtime:
        url = settings.database_url.get_secret_value()
        await migrate(url, "services.aggregator")
        database = Database(
            url, pool_size=settings.database_pool_size, application_name=f"usageflow-{NAME}"
        )
        runtime.on_stop("database", database.close)
        messaging = await Messaging.connect(settings.nats_url.get_secret_value(), NAME)
        runtime.on_stop("messaging", messaging.close)
        await serve_inbox(database, inbox, messaging, NAME)

        relay = OutboxRelay(TableOutbox(database, outbox), messaging, "invoicer")
        runtime.spawn("outbox", relay.run)
        billing_relay = OutboxRelay(
            TableOutbox(database, billing_outbox), messaging, thresholds.CONSUMER
        )
        runtime.spawn("billing_outbox", billing_relay.run)
        runtime.spawn("audit", audit_relay(database, audit_outbox, messaging).run)
        reached = thresholds.Thresholds(database, billing_relay.wake)
        runtime.spawn("thresholds", reached.run)
        # No retries: a usage question does not wait for ingest, and invoicer asks again.
        ingest = open_channel(settings.ingest_address)
        runtime.on_stop("ingest", lambda: ingest.close(None))
        watermark = IngestWatermark(ingest, settings.internal_token)
        runtime.spawn("maintenance", Maintenance(database, watermark).run)

        waits = TokenWait(database, watermark, settings.usage_token_wait_s)
        replay = IngestReplay(ingest, settings.internal_token, timeout_s=RECOUNT_TIMEOUT_S)
        answers = UsageAnswers(database, watermark, waits, replay)
        live = LiveUsage(answers)
        changes = UsageChanges(messaging, live.changed)
        await changes.start()
        runtime.spawn("usage_changes", changes.run)
        recounter = Recounter(database, replay)
        runtime.spawn("recounts", recounter.run)
        runtime.spawn("rollups", Roller(database).run)
        folder = Folder(
            database,
            relay.wake,
            batches_counted=waits.counted,
            buckets_marked=recounter.wake,
            quotas_touched=reached.wake,
            usage_changed=changes.counted,
            pause_after_commit_s=settings.test_pause_after_commit_s,
        )
        consumer = messaging.consume(
            EVENTS,
            NAME,
            folder.handle,
            batch_max=MESSAGES_MAX,
            gather_s=GATHER_S,
            hurry=waits.somebody_waits,
        )
        runtime.spawn("fold", consumer.run)
        rebuilder = Rebuilder(
            database,
            IngestHistory(ingest, settings.internal_token, timeout_s=HISTORY_TIMEOUT_S),
            folder,
            dimension_values_max=settings.dimension_values_max,
            buckets_marked=recounter.wake,
            usage_changed=changes.counted,
        )
        runtime.spawn("rebuilds", rebuilder.run)
        if settings.reconcile:

            def usage_changed() -> None:
                relay.wake()
                reached.wake()
                changes.counted(())

            accepted = IngestAccepted(ingest, settings.internal_token, timeout_s=ACCEPTED_TIMEOUT_S)
            repair = Repair(database, accepted, folder, usage_changed=usage_changed)
            reconciler = Reconciler(database, accepted, watermark, repair)
            runtime.spawn("reconciliation", reconciler.run)

        accounts = open_channel(
            settings.accounts_address,
            [accounts_pb2.DESCRIPTOR.services_by_name["AccountsInternalService"]],
        )
        runtime.on_stop("accounts", lambda: accounts.close(None))
        keys = KeyCache(accounts, settings.internal_token, messaging)
        await keys.start()

        metrics = Metrics(
            database,
            settings.dimension_values_max,
            rebuild_begun=rebuilder.wake,
            rebuild_wait_s=REBUILD_WAIT_S,
        )
        server = GrpcServer(settings, keys, DatabaseCheck(url), Answers(database))
        server.add(
            aggregator_pb2_grpc.add_AggregatorServiceServicer_to_server,
            AggregatorServicer(metrics, answers, Activities(database), Standings(database)),
            "usageflow.aggregator.v1.AggregatorService",
        )
        server.add(
            aggregator_pb2_grpc.add_AggregatorInternalServiceServicer_to_server,
            AggregatorInternalServicer(answers, metrics),
            "usageflow.aggregator.v1.AggregatorInternalService",
        )
        server.add(
            quotas_pb2_grpc.add_QuotaServiceServicer_to_server,
            QuotaServicer(
                Quotas(database),
                QuotaChecks(database, watermark),
                Reservations(database, watermark),
            ),
            "usageflow.aggregator.v1.QuotaService",
        )
        server.add(
            quotas_pb2_grpc.add_PlanLimitsInternalServiceServicer_to_server,
            PlanLimitsServicer(PlanLimits(database)),
            "usageflow.aggregator.v1.PlanLimitsInternalService",
        )
        server.add(
            live_pb2_grpc.add_LiveUsageServiceServicer_to_server,
            LiveUsageServicer(live, keys),
            "usageflow.aggregator.v1.LiveUsageService",
        )
        server.add(
            audit_pb2_grpc.add_AuditInternalServiceServicer_to_server,
            AuditServicer(metrics, answers),
            "usageflow.aggregator.v1.AuditInternalService",
        )
        await server.start()
        runtime.on_stop("grpc", server.stop)
        # Before the server: it would wait for those who watch.
        runtime.on_stop("live", live.close)
        await runtime.wait()
