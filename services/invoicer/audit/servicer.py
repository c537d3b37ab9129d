"""Rows as they are, for whoever checks them; the interceptor has checked the internal token."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from usageflow.invoicer.v1 import audit_pb2 as pb
from usageflow.invoicer.v1.audit_pb2_grpc import AuditInternalServiceServicer

from services.invoicer.audit import repository
from services.kit.auth import MODE_NAMES
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldProblem, InvalidArgumentError

ROWS_PER_MESSAGE_MAX = 500
# Each holds one of the pool's connections for as long as its caller reads; others wait their turn.
STREAMS_RUNNING_MAX = 1

_QUERIES = (
    (pb.BILLING_ROW_KIND_PLAN, repository.PLANS),
    (pb.BILLING_ROW_KIND_SUBSCRIPTION, repository.SUBSCRIPTIONS),
    (pb.BILLING_ROW_KIND_CHARGE, repository.CHARGES),
    (pb.BILLING_ROW_KIND_COUNTER, repository.COUNTERS),
    (pb.BILLING_ROW_KIND_CREDIT_WALLET, repository.CREDIT_WALLETS),
    (pb.BILLING_ROW_KIND_CREDIT_ENTRY, repository.CREDIT_ENTRIES),
    (pb.BILLING_ROW_KIND_DOCUMENT, repository.DOCUMENTS),
)


class AuditServicer(AuditInternalServiceServicer):
    """What an audit reads of an organization."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._running = asyncio.Semaphore(STREAMS_RUNNING_MAX)

    async def StreamBillingRows(
        self, request: pb.StreamBillingRowsRequest, context: object
    ) -> AsyncIterator[pb.StreamBillingRowsResponse]:
        """What documents were made from, and the documents, of one moment."""
        if request.mode not in MODE_NAMES:
            raise InvalidArgumentError([FieldProblem("mode", "must be live or test")])
        tenant = TenantKey(request.organization_id, MODE_NAMES[request.mode])
        async with self._running, self._database.transaction() as connection:
            await repository.begin_snapshot(connection)
            for kind, query in _QUERIES:
                rows = repository.stream_rows(connection, query, tenant, ROWS_PER_MESSAGE_MAX)
                async with aclosing(rows) as parts:
                    async for part in parts:
                        yield pb.StreamBillingRowsResponse(
                            rows=[pb.BillingRow(kind=kind, json=json) for json in part]
                        )
