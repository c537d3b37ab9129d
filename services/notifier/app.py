"""Wires notifier together."""

from usageflow.accounts.v1 import accounts_pb2
from usageflow.notifier.v1 import notifier_pb2_grpc

from services.kit.auth import KeyCache
from services.kit.database import Database
from services.kit.grpc_client import open_channel
from services.kit.grpc_server import GrpcServer
from services.kit.inbox import serve_inbox
from services.kit.messaging import BILLING, Messaging
from services.kit.migrations import migrate
from services.kit.runtime import Runtime
from services.notifier.consumer import BATCH_MAX, BillingConsumer
from services.notifier.recorder import Recorder
from services.notifier.sender import Sender
from services.notifier.service import Notifier
from services.notifier.servicer import NotifierServicer
from services.notifier.settings import NotifierSettings
from services.notifier.tables import inbox
from services.notifier.worker import Worker

CONSUMER = "notifier"
ACCOUNTS_INTERNAL = accounts_pb2.DESCRIPTOR.services_by_name["AccountsInternalService"]


async def main(settings: NotifierSettings | None = None) -> None:
    """Run notifier until it is asked to stop."""
    settings = settings or NotifierSettings()
    async with Runtime("notifier", settings) as runtime:
        url = settings.database_url.get_secret_value()
        await migrate(url, "services.notifier")
        database = Database(
            url, pool_size=settings.database_pool_size, application_name="usageflow-notifier"
        )
        runtime.on_stop("database", database.close)
        messaging = await Messaging.connect(settings.nats_url.get_secret_value(), "notifier")
        runtime.on_stop("messaging", messaging.close)
        channel = open_channel(settings.accounts_address, [ACCOUNTS_INTERNAL])
        runtime.on_stop("accounts", channel.close)
        keys = KeyCache(channel, settings.internal_token, messaging)
        await keys.start()

        sender = Sender(
            allow_private=settings.webhook_allow_private, timeout_s=settings.webhook_timeout_s
        )
        runtime.on_stop("sender", sender.close)
        recorder = Recorder(database)
        runtime.spawn("recorder", recorder.run)
        worker = Worker(database, sender, recorder, settings)
        runtime.spawn("worker", worker.run)

        notifier = Notifier(
            database,
            allow_private=settings.webhook_allow_private,
            first_delay_s=settings.webhook_retry_delays_s[0],
            due=worker.wake,
        )
        consumer = messaging.consume(
            BILLING, CONSUMER, BillingConsumer(notifier).handle, batch_max=BATCH_MAX
        )
        await serve_inbox(database, inbox, messaging, CONSUMER)
        runtime.spawn("consumer", consumer.run)

        server = GrpcServer(settings, keys)
        server.add(
            notifier_pb2_grpc.add_NotifierServiceServicer_to_server,
            NotifierServicer(notifier),
            "usageflow.notifier.v1.NotifierService",
        )
        await server.start()
        runtime.on_stop("grpc", server.stop)
        await runtime.wait()
