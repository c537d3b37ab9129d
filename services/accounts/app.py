"""Wires accounts together."""

from usageflow.accounts.v1 import accounts_pb2_grpc, members_pb2_grpc

from services.accounts import audit_repository
from services.accounts.audit import BATCH_MAX, AuditConsumer, AuditLog
from services.accounts.keys import ChangeBroadcast, OwnKeys
from services.accounts.members_servicer import MembersInternalServicer, MembersServicer
from services.accounts.passwords import Passwords
from services.accounts.service import Accounts
from services.accounts.servicer import AccountsInternalServicer, AccountsServicer
from services.accounts.settings import AccountsSettings
from services.accounts.signing_in import SigningIn
from services.kit.audit import CONSUMER
from services.kit.database import Database
from services.kit.grpc_server import GrpcServer
from services.kit.inbox import serve_inbox
from services.kit.messaging import AUDIT, Messaging
from services.kit.migrations import migrate
from services.kit.readiness import DatabaseCheck
from services.kit.runtime import Runtime


async def main(settings: AccountsSettings | None = None) -> None:
    """Run accounts until it is asked to stop."""
    settings = settings or AccountsSettings()
    async with Runtime("accounts", settings) as runtime:
        url = settings.database_url.get_secret_value()
        await migrate(url, "services.accounts")
        database = Database(
            url, pool_size=settings.database_pool_size, application_name="usageflow-accounts"
        )
        runtime.on_stop("database", database.close)
        messaging = await Messaging.connect(settings.nats_url.get_secret_value(), "accounts")
        runtime.on_stop("messaging", messaging.close)

        pepper = settings.key_pepper.get_secret_value().encode()
        changes = ChangeBroadcast(messaging)
        accounts = Accounts(database, pepper, changes)
        signing_in = SigningIn(database, pepper, changes, Passwords())
        audit_log = AuditLog(database)
        consumer = messaging.consume(
            AUDIT, CONSUMER, AuditConsumer(audit_log).handle, batch_max=BATCH_MAX
        )
        await serve_inbox(database, audit_repository.inbox, messaging, CONSUMER)
        runtime.spawn("consumer", consumer.run)

        server = GrpcServer(settings, OwnKeys(accounts, signing_in), DatabaseCheck(url))
        add_services(server, accounts, signing_in, audit_log)
        await server.start()
        runtime.on_stop("grpc", server.stop)
        await runtime.wait()


def add_services(
    server: GrpcServer, accounts: Accounts, signing_in: SigningIn, audit_log: AuditLog
) -> None:
    """Serve everything that accounts offers."""
    server.add(
        accounts_pb2_grpc.add_AccountsServiceServicer_to_server,
        AccountsServicer(accounts, audit_log),
        "usageflow.accounts.v1.AccountsService",
    )
    server.add(
        accounts_pb2_grpc.add_AccountsInternalServiceServicer_to_server,
        AccountsInternalServicer(accounts),
        "usageflow.accounts.v1.AccountsInternalService",
    )
    server.add(
        members_pb2_grpc.add_MembersServiceServicer_to_server,
        MembersServicer(accounts, signing_in),
        "usageflow.accounts.v1.MembersService",
    )
    server.add(
        members_pb2_grpc.add_MembersInternalServiceServicer_to_server,
        MembersInternalServicer(signing_in),
        "usageflow.accounts.v1.MembersInternalService",
    )
