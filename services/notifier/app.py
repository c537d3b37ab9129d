"""Wires notifier together."""

import asyncio
import functools

from usageflow.accounts.v1 import accounts_pb2
from usageflow.notifier.v1 import notifier_pb2_grpc

from services.kit.audit import audit_relay
from services.kit.auth import KeyCache
from services.kit.database import Database, wake_after_commit
from services.kit.grpc_client import open_channel
from services.kit.grpc_server import GrpcServer
from services.kit.idempotency import Answers
from services.kit.inbox import serve_inbox
from services.kit.messaging import BILLING, Messaging
from services.kit.migrations import migrate
from services.kit.readiness import DatabaseCheck
from services.kit.runtime import Runtime
from services.notifier.consumer import BATCH_MAX, BillingConsumer
from services.notifier.deliveries import Deliveries
from services.notifier.health import Health
from services.notifier.listening import Listening
from services.notifier.maintenance import Maintenance
from services.notifier.recorder import Recorder
from services.notifier.sealing import Sealer
from services.notifier.secret_store import seal_all
from services.notifier.sender import Sender
from services.notifier.service import Notifier
from services.notifier.servicer import NotifierServicer
from services.notifier.settings import NotifierSettings
from services.notifier.tables import audit_outbox, inbox
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
        sealer = Sealer(settings.secrets_keys)
        await seal_all(database, sealer)
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
        due = asyncio.Event()
        recorder = Recorder(database, Health(database, due.set))
        runtime.spawn("recorder", recorder.run)
        worker = Worker(database, sealer, sender, recorder, settings, due)
        runtime.spawn("worker", worker.run)

        wake = functools.partial(wake_after_commit, due.set)
        notifier = Notifier(
            database,
            sealer,
            allow_private=settings.webhook_allow_private,
            first_delay_s=settings.webhook_retry_delays_s[0],
            due=wake,
        )
        consumer = messaging.consume(
            BILLING, CONSUMER, BillingConsumer(notifier).handle, batch_max=BATCH_MAX
        )
        await serve_inbox(database, inbox, messaging, CONSUMER)
        runtime.spawn("audit", audit_relay(database, audit_outbox, messaging).run)
        runtime.spawn("consumer", consumer.run)

        maintenance = Maintenance(database, settings.webhook_retention_days)
        runtime.spawn("maintenance", maintenance.run)

        server = GrpcServer(settings, keys, DatabaseCheck(url), Answers(database))
        server.add(
            notifier_pb2_grpc.add_NotifierServiceServicer_to_server,
            NotifierServicer(notifier, Deliveries(database, due=wake), Listening(database)),
            "usageflow.notifier.v1.NotifierService",
        )
        await server.start()
        runtime.on_stop("grpc", server.stop)
        await runtime.wait()
