"""Wires ingest together."""

import functools
from typing import NamedTuple

from usageflow.accounts.v1 import accounts_pb2
from usageflow.aggregator.v1 import aggregator_pb2
from usageflow.ingest.v1 import counted_pb2_grpc, ingest_pb2_grpc, reconciliation_pb2_grpc

from services.ingest.batches import CONSUMER, BatchOutbox
from services.ingest.committer import Committer
from services.ingest.counted.service import CountedEvents
from services.ingest.counted.servicer import CountedEventsServicer
from services.ingest.history import Histories
from services.ingest.maintenance import Maintenance
from services.ingest.publisher import Publisher
from services.ingest.queue import EventQueue
from services.ingest.reconciliation.service import Reconciliation
from services.ingest.reconciliation.servicer import ReconciliationServicer
from services.ingest.replay import Replays
from services.ingest.retention import AccountsRetention, Retention
from services.ingest.segment_keeper import SegmentKeeper
from services.ingest.segments import Segments
from services.ingest.service import Ingest
from services.ingest.servicer import IngestInternalServicer, IngestServicer
from services.ingest.settings import IngestSettings
from services.ingest.strict_metrics import ASK_TIMEOUT_S, NoMetrics, StrictMetrics
from services.ingest.tables import audit_outbox
from services.ingest.voids import Voids
from services.ingest.writer import EventWriter
from services.kit.audit import audit_relay
from services.kit.auth import KeyCache
from services.kit.database import Database, wake_after_commit
from services.kit.grpc_client import open_channel
from services.kit.grpc_server import GrpcServer
from services.kit.idempotency import Answers
from services.kit.messaging import Messaging
from services.kit.metrics import AggregatorMetrics, MetricsSource
from services.kit.migrations import migrate
from services.kit.outbox import OutboxRelay
from services.kit.readiness import DatabaseCheck
from services.kit.runtime import Runtime


class Storage(NamedTuple):
    """What stores events, running."""

    queue: EventQueue
    relay: OutboxRelay
    segments: Segments
    maintenance: Maintenance
    keeper: SegmentKeeper


async def main(settings: IngestSettings | None = None) -> None:
    """Run ingest until it is asked to stop."""
    settings = settings or IngestSettings()
    async with Runtime("ingest", settings) as runtime:
        url = settings.database_url.get_secret_value()
        await migrate(url, "services.ingest")
        database = Database(
            url, pool_size=settings.database_pool_size, application_name="usageflow-ingest"
        )
        runtime.on_stop("database", database.close)
        messaging = await Messaging.connect(settings.nats_url.get_secret_value(), "ingest")
        runtime.on_stop("messaging", messaging.close)

        services = [accounts_pb2.DESCRIPTOR.services_by_name["AccountsInternalService"]]
        accounts = open_channel(settings.accounts_address, services)
        runtime.on_stop("accounts", accounts.close)
        retention = Retention(AccountsRetention(accounts, settings.internal_token))
        storage = start_storing(runtime, settings, database, messaging, retention)
        runtime.spawn("audit", audit_relay(database, audit_outbox, messaging).run)
        ingest = Ingest(database, storage.queue)
        strict = StrictMetrics(_defined_metrics(runtime, settings))
        keys = KeyCache(accounts, settings.internal_token, messaging)
        await keys.start()
        server = GrpcServer(settings, keys, DatabaseCheck(url), Answers(database))
        server.add(
            ingest_pb2_grpc.add_IngestServiceServicer_to_server,
            IngestServicer(
                ingest,
                Voids(database, functools.partial(wake_after_commit, storage.relay.wake)),
                strict,
            ),
            "usageflow.ingest.v1.IngestService",
        )
        server.add(
            ingest_pb2_grpc.add_IngestInternalServiceServicer_to_server,
            IngestInternalServicer(ingest, Replays(database), Histories(database), strict),
            "usageflow.ingest.v1.IngestInternalService",
        )
        server.add(
            reconciliation_pb2_grpc.add_ReconciliationInternalServiceServicer_to_server,
            ReconciliationServicer(Reconciliation(database)),
            "usageflow.ingest.v1.ReconciliationInternalService",
        )
        server.add(
            counted_pb2_grpc.add_CountedEventsInternalServiceServicer_to_server,
            CountedEventsServicer(CountedEvents(database)),
            "usageflow.ingest.v1.CountedEventsInternalService",
        )
        await server.start()
        runtime.on_stop("grpc", server.stop)
        await runtime.wait()


def _defined_metrics(runtime: Runtime, settings: IngestSettings) -> MetricsSource:
    if not settings.aggregator_address:
        return NoMetrics()
    services = [aggregator_pb2.DESCRIPTOR.services_by_name["AggregatorInternalService"]]
    aggregator = open_channel(settings.aggregator_address, services)
    runtime.on_stop("aggregator", aggregator.close)
    return AggregatorMetrics(aggregator, settings.internal_token, ASK_TIMEOUT_S)


def start_storing(
    runtime: Runtime,
    settings: IngestSettings,
    database: Database,
    messaging: Messaging,
    retention: Retention | None = None,
) -> Storage:
    """Start what empties the queue (committers, publisher, outbox relay), and what looks after the
    segments.
    """
    url = settings.database_url.get_secret_value()
    relay = OutboxRelay(BatchOutbox(database), messaging, CONSUMER)
    runtime.spawn("outbox", relay.run)
    publisher = Publisher(messaging, relay, events_max=settings.publish_events_queued_max)
    runtime.spawn("publisher", publisher.run)
    queue = EventQueue(events_max=settings.events_queued_max, bytes_max=settings.queued_bytes_max)
    segments = Segments(
        database,
        events_max=settings.segment_events_max,
        filters_bytes_max=settings.key_filters_bytes_max,
        resident_bytes_max=settings.key_filters_memory_bytes_max,
        directory=settings.key_filters_directory,
    )
    for number in range(settings.committers):
        committer = Committer(
            queue,
            EventWriter(url, timeout_s=settings.commit_timeout_s),
            publisher,
            segments,
            batch_events_max=settings.batch_events_max,
            pause_after_commit_s=settings.test_pause_after_commit_s,
        )
        runtime.spawn(f"committer-{number}", committer.run)
    maintenance = Maintenance(database, segments, segment_events_max=settings.segment_events_max)
    runtime.spawn("maintenance", maintenance.run)
    keeper = SegmentKeeper(url, segments, retention, lambda: queue.taken)
    runtime.spawn("segment-keeper", keeper.run)
    return Storage(queue, relay, segments, maintenance, keeper)
