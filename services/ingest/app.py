"""Wires ingest together."""

from usageflow.accounts.v1 import accounts_pb2
from usageflow.ingest.v1 import ingest_pb2_grpc

from services.ingest.batches import CONSUMER, BatchOutbox
from services.ingest.committer import Committer, DuplicatesExpected
from services.ingest.maintenance import Maintenance
from services.ingest.publisher import Publisher
from services.ingest.queue import EventQueue
from services.ingest.service import Ingest
from services.ingest.servicer import IngestInternalServicer, IngestServicer
from services.ingest.settings import IngestSettings
from services.ingest.writer import EventWriter
from services.kit.auth import KeyCache
from services.kit.database import Database
from services.kit.grpc_client import open_channel
from services.kit.grpc_server import GrpcServer
from services.kit.messaging import Messaging
from services.kit.migrations import migrate
from services.kit.outbox import OutboxRelay
from services.kit.runtime import Runtime


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

        queue = start_storing(runtime, settings, database, messaging)
        ingest = Ingest(database, queue)
        services = [accounts_pb2.DESCRIPTOR.services_by_name["AccountsInternalService"]]
        accounts = open_channel(settings.accounts_address, services)
        runtime.on_stop("accounts", accounts.close)
        keys = KeyCache(accounts, settings.internal_token, messaging)
        await keys.start()
        server = GrpcServer(settings, keys)
        server.add(
            ingest_pb2_grpc.add_IngestServiceServicer_to_server,
            IngestServicer(ingest),
            "usageflow.ingest.v1.IngestService",
        )
        server.add(
            ingest_pb2_grpc.add_IngestInternalServiceServicer_to_server,
            IngestInternalServicer(ingest),
            "usageflow.ingest.v1.IngestInternalService",
        )
        await server.start()
        runtime.on_stop("grpc", server.stop)
        await runtime.wait()


def start_storing(
    runtime: Runtime, settings: IngestSettings, database: Database, messaging: Messaging
) -> EventQueue:
    """Start what empties the queue that is returned (committers, publisher, outbox relay), and
    maintenance.
    """
    relay = OutboxRelay(BatchOutbox(database), messaging, CONSUMER)
    runtime.spawn("outbox", relay.run)
    publisher = Publisher(messaging, relay, events_max=settings.publish_events_queued_max)
    runtime.spawn("publisher", publisher.run)
    queue = EventQueue(events_max=settings.events_queued_max, bytes_max=settings.queued_bytes_max)
    duplicates = DuplicatesExpected()
    for number in range(settings.committers):
        committer = Committer(
            queue,
            EventWriter(
                settings.database_url.get_secret_value(), timeout_s=settings.commit_timeout_s
            ),
            publisher,
            duplicates,
            batch_events_max=settings.batch_events_max,
            pause_after_commit_s=settings.test_pause_after_commit_s,
        )
        runtime.spawn(f"committer-{number}", committer.run)
    runtime.spawn("maintenance", Maintenance(database).run)
    return queue
