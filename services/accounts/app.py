"""Wires accounts together."""

from usageflow.accounts.v1 import accounts_pb2_grpc, members_pb2_grpc, portal_pb2_grpc

from services.accounts import audit_repository
from services.accounts.audit import BATCH_MAX, AuditConsumer, AuditLog
from services.accounts.changes import Changes
from services.accounts.invitations import Invitations
from services.accounts.keys import ChangeBroadcast, OwnKeys
from services.accounts.members import Members
from services.accounts.members_servicer import (
    MembersInternalServicer,
    MembersServicer,
    People,
)
from services.accounts.passwords import Passwords
from services.accounts.portal import Portals
from services.accounts.portal_servicer import PortalInternalServicer, PortalServicer
from services.accounts.service import Accounts
from services.accounts.servicer import AccountsInternalServicer, AccountsServicer
from services.accounts.settings import AccountsSettings
from services.accounts.signing_in import SigningIn
from services.kit.audit import CONSUMER
from services.kit.database import Database
from services.kit.grpc_server import GrpcServer
from services.kit.idempotency import Answers
from services.kit.inbox import serve_inbox
from services.kit.messaging import AUDIT, Messaging
from services.kit.migrations import migrate
from services.kit.readiness import DatabaseCheck
from services.kit.runtime import Runtime
from services.kit.signatures import Signatures


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
        people = people_of(database, pepper, changes, Passwords())
        audit_log = AuditLog(database)
        consumer = messaging.consume(
            AUDIT, CONSUMER, AuditConsumer(audit_log).handle, batch_max=BATCH_MAX
        )
        await serve_inbox(database, audit_repository.inbox, messaging, CONSUMER)
        runtime.spawn("consumer", consumer.run)

        signatures = Signatures(settings.internal_token)
        own_keys = OwnKeys(people.accounts, people.signing_in, people.portals, signatures)
        server = GrpcServer(settings, own_keys, DatabaseCheck(url), Answers(database))
        add_services(server, people, audit_log, signatures)
        await server.start()
        runtime.on_stop("grpc", server.stop)
        await runtime.wait()


def people_of(database: Database, pepper: bytes, changes: Changes, passwords: Passwords) -> People:
    """The use cases of organizations and their members."""
    signing_in = SigningIn(database, pepper, changes, passwords)
    return People(
        accounts=Accounts(database, pepper, changes),
        signing_in=signing_in,
        members=Members(database, changes, passwords),
        invitations=Invitations(database, pepper, signing_in, passwords),
        portals=Portals(database, pepper, changes),
    )


def add_services(
    server: GrpcServer, people: People, audit_log: AuditLog, signatures: Signatures
) -> None:
    """Serve everything that accounts offers."""
    server.add(
        accounts_pb2_grpc.add_AccountsServiceServicer_to_server,
        AccountsServicer(people.accounts, audit_log),
        "usageflow.accounts.v1.AccountsService",
    )
    server.add(
        accounts_pb2_grpc.add_AccountsInternalServiceServicer_to_server,
        AccountsInternalServicer(people.accounts),
        "usageflow.accounts.v1.AccountsInternalService",
    )
    server.add(
        members_pb2_grpc.add_MembersServiceServicer_to_server,
        MembersServicer(people),
        "usageflow.accounts.v1.MembersService",
    )
    server.add(
        members_pb2_grpc.add_MembersInternalServiceServicer_to_server,
        MembersInternalServicer(people),
        "usageflow.accounts.v1.MembersInternalService",
    )
    server.add(
        portal_pb2_grpc.add_PortalServiceServicer_to_server,
        PortalServicer(people.portals, signatures),
        "usageflow.accounts.v1.PortalService",
    )
    server.add(
        portal_pb2_grpc.add_PortalInternalServiceServicer_to_server,
        PortalInternalServicer(people.portals),
        "usageflow.accounts.v1.PortalInternalService",
    )
