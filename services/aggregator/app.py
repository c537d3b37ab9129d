"""Wires aggregator together; nothing else."""

from usageflow.accounts.v1 import accounts_pb2
from usageflow.aggregator.v1 import aggregator_pb2_grpc

from services.aggregator.folder import GATHER_S, MESSAGES_MAX, Folder
from services.aggregator.maintenance import Maintenance
from services.aggregator.service import Metrics, UsageAnswers
from services.aggregator.servicer import AggregatorInternalServicer, AggregatorServicer
from services.aggregator.settings import AggregatorSettings
from services.aggregator.tables import inbox, outbox
from services.aggregator.watermark import IngestWatermark
from services.kit.auth import KeyCache
from services.kit.database import Database
from services.kit.grpc_client import open_channel
from services.kit.grpc_server import GrpcServer
from services.kit.inbox import serve_inbox
from services.kit.messaging import EVENTS, Messaging
from services.kit.migrations import migrate
from services.kit.outbox import OutboxRelay, TableOutbox
from services.kit.runtime import Runtime

NAME = "aggregator"


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
        folder = Folder(
            database, relay.wake, pause_after_commit_s=settings.test_pause_after_commit_s
        )
        consumer = messaging.consume(
            EVENTS, NAME, folder.handle, batch_max=MESSAGES_MAX, gather_s=GATHER_S
        )
        runtime.spawn("fold", consumer.run)

        # No retries: a usage question does not wait for ingest, and invoicer asks again.
        ingest = open_channel(settings.ingest_address)
        runtime.on_stop("ingest", lambda: ingest.close(None))
        watermark = IngestWatermark(ingest, settings.internal_token)
        runtime.spawn("maintenance", Maintenance(database, watermark).run)

        accounts = open_channel(
            settings.accounts_address,
            [accounts_pb2.DESCRIPTOR.services_by_name["AccountsInternalService"]],
        )
        runtime.on_stop("accounts", lambda: accounts.close(None))
        keys = KeyCache(accounts, settings.internal_token, messaging)
        await keys.start()

        answers = UsageAnswers(database, watermark)
        server = GrpcServer(settings, keys)
        server.add(
            aggregator_pb2_grpc.add_AggregatorServiceServicer_to_server,
            AggregatorServicer(Metrics(database), answers),
            "usageflow.aggregator.v1.AggregatorService",
        )
        server.add(
            aggregator_pb2_grpc.add_AggregatorInternalServiceServicer_to_server,
            AggregatorInternalServicer(answers),
            "usageflow.aggregator.v1.AggregatorInternalService",
        )
        await server.start()
        runtime.on_stop("grpc", server.stop)
        await runtime.wait()
