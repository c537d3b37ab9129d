"""invoicer and ingest, as an audit of invoices asks them, with the internal token."""

import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.aggregator.v1 import audit_pb2 as aggregator_audit_pb2
from usageflow.common.v1 import common_pb2
from usageflow.ingest.v1 import counted_pb2, counted_pb2_grpc
from usageflow.ingest.v1.ingest_pb2 import StoredEvent
from usageflow.invoicer.v1 import audit_pb2, audit_pb2_grpc

from cli.auditing.invoices.books import Row
from cli.auditing.parts import INVOICER_VARIABLE, Parts, Where
from cli.errors import StackError
from services.kit.grpc_client import open_channel

EVENTS_PER_PAGE = 2_000
# An organization may have millions of documents.
STREAM_S = 3_600.0


@dataclass(frozen=True, slots=True)
class CountedPage:
    """Some of the events behind a line. `dropped`: retention has dropped some that may have been
    among all of them.
    """

    events: Sequence[StoredEvent]
    dropped: bool = False


class BillingParts(Parts):
    """Parts with invoicer besides."""

    def __init__(
        self,
        channels: tuple[grpc.aio.Channel, grpc.aio.Channel, grpc.aio.Channel],
        where: Where,
        organization_id: str,
        mode: common_pb2.Mode.ValueType,
    ) -> None:
        ingest, aggregator, invoicer = channels
        super().__init__(ingest, aggregator, where.token, organization_id, mode)
        self._rows = audit_pb2_grpc.AuditInternalServiceStub(invoicer)
        self._counted = counted_pb2_grpc.CountedEventsInternalServiceStub(ingest)

    async def billing_rows(self) -> AsyncIterator[tuple[int, Row]]:
        """What documents were made from, then the documents; numbers are texts with all digits.

        All are fetched first, into a file, so that invoicer's snapshot is soon let go.
        """
        request = audit_pb2.StreamBillingRowsRequest(**self._whose)
        with tempfile.TemporaryFile("w+", encoding="utf-8") as rows:
            async for response in self._stream(self._rows.StreamBillingRows, request, STREAM_S):
                rows.writelines(f"{row.kind} {row.json}\n" for row in response.rows)
            rows.seek(0)
            for text in rows:
                kind, _, row = text.partition(" ")
                yield int(kind), json.loads(row, parse_int=str, parse_float=str)

    async def counted_events(self, invoice: Row, line: Row) -> AsyncIterator[CountedPage]:
        """The events that the whole usage of a line's period was made of."""
        request = counted_pb2.ListCountedEventsRequest(
            **self._whose,
            metric=line["metric"],
            customer_id=invoice["customer_id"],
            until=_boundary(invoice),
            page_size=EVENTS_PER_PAGE,
            to=_stamp(line["period_end"]),
        )
        # The field's name is a keyword of Python.
        getattr(request, "from").CopyFrom(_stamp(line["period_start"]))
        while True:
            answer = await self._call(self._counted.ListCountedEvents, request)
            yield CountedPage([each.event for each in answer.events], answer.dropped)
            request.page_token = answer.next_page_token
            if not request.page_token:
                return


def _boundary(invoice: Row) -> counted_pb2.CountedBoundary:
    """What the invoice had counted; of old ones what was accepted before it."""
    reading = invoice["reading"]
    if reading is None:
        return counted_pb2.CountedBoundary(before=_stamp(invoice["finalize_time"]))
    ids = bytes.fromhex(reading["batch_ids"].removeprefix("\\x"))
    return counted_pb2.CountedBoundary(before=_stamp(reading["counted_before"]), batch_ids=ids)


def _stamp(text: str) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.fromisoformat(text))
    return stamp


@asynccontextmanager
async def connected_billing(
    where: Where, organization_id: str, mode: common_pb2.Mode.ValueType
) -> AsyncIterator[BillingParts]:
    """The parts, for one organization and mode. StackError: nobody said where invoicer is."""
    if not where.invoicer:
        raise StackError(f"set {INVOICER_VARIABLE}, too")
    services = [
        descriptor
        for module in (counted_pb2, audit_pb2, aggregator_audit_pb2)
        for descriptor in module.DESCRIPTOR.services_by_name.values()
    ]
    async with (
        open_channel(where.ingest, services) as ingest,
        open_channel(where.aggregator, services) as aggregator,
        open_channel(where.invoicer, services) as invoicer,
    ):
        yield BillingParts((ingest, aggregator, invoicer), where, organization_id, mode)
