"""Customers come into being with their first usage: what aggregator tells, applied once."""

import structlog
from nats.aio.msg import Msg
from usageflow.events.v1 import events_pb2

from services.invoicer.checks import is_customer_id
from services.invoicer.repository.customers import ensure_customers
from services.invoicer.tables import inbox
from services.kit import clock
from services.kit.auth import MODE_NAMES
from services.kit.database import Database, TenantKey
from services.kit.inbox import take_new
from services.kit.messaging import message_id as id_of

log = structlog.get_logger()

DURABLE = "invoicer"
INBOX_CONSUMER = "invoicer"
BATCH_MAX = 100


class CustomersSeenHandler:
    """Handles batches of CustomersSeen messages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def handle(self, messages: list[Msg]) -> None:
        """Let the customers come into being; returning means that all of it is committed."""
        seen = {id_of(message): message.data for message in messages}
        async with self._database.transaction() as connection:
            new = await take_new(connection, inbox, list(seen))
            keys = [key for message_id in new for key in _customers(seen[message_id])]
            await ensure_customers(connection, keys, clock.now())


def _customers(payload: bytes) -> list[tuple[TenantKey, str]]:
    seen = events_pb2.CustomersSeen.FromString(payload)
    tenant = TenantKey(seen.organization_id, MODE_NAMES[seen.mode])
    return [
        (tenant, customer_id) for customer_id in seen.customer_ids if is_customer_id(customer_id)
    ]
