"""ingest and aggregator, as an audit asks them, with the internal token."""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import SecretStr
from usageflow.aggregator.v1 import aggregator_pb2, audit_pb2, audit_pb2_grpc
from usageflow.common.v1 import common_pb2
from usageflow.events.v1.events_pb2 import UsageEvent
from usageflow.ingest.v1 import (
    ingest_pb2,
    ingest_pb2_grpc,
    reconciliation_pb2,
    reconciliation_pb2_grpc,
)

from cli.connection import read_connection
from cli.errors import StackError
from cli.files import read_json
from services.kit.grpc_client import internal_metadata, open_channel

CALL_S = 60.0
METRICS_PER_PAGE = 100
ROWS_PER_PAGE = 10_000
INGEST_VARIABLE = "USAGEFLOW_INGEST_ADDRESS"
AGGREGATOR_VARIABLE = "USAGEFLOW_AGGREGATOR_ADDRESS"
INVOICER_VARIABLE = "USAGEFLOW_INVOICER_ADDRESS"
TOKEN_VARIABLE = "USAGEFLOW_INTERNAL_TOKEN"  # noqa: S105 (a variable's name)


@dataclass(frozen=True)
class Where:
    """Addresses ("": not known), the internal token, and the organization of the home ("": none
    is known).
    """

    ingest: str
    aggregator: str
    invoicer: str
    token: SecretStr
    organization_id: str


def find_parts(home: Path, environ: Mapping[str, str] = os.environ) -> Where:
    """Those of the environment, when it names all; else those of the stack that runs in `home`."""
    ingest, aggregator = environ.get(INGEST_VARIABLE), environ.get(AGGREGATOR_VARIABLE)
    token = environ.get(TOKEN_VARIABLE)
    if ingest and aggregator and token:
        return Where(ingest, aggregator, environ.get(INVOICER_VARIABLE, ""), SecretStr(token), "")
    connection = read_connection(home / "connection.json")
    if connection is None:
        names = f"{INGEST_VARIABLE}, {AGGREGATOR_VARIABLE} and {TOKEN_VARIABLE}"
        raise StackError(f"no stack runs in {home}: start one, or set {names}")
    secrets = read_json(home / "secrets.json")
    return Where(
        connection.grpc["ingest"],
        connection.grpc["aggregator"],
        connection.grpc["invoicer"],
        SecretStr(str(secrets["internal_token"])),
        str(secrets["organization_id"]),
    )


@dataclass(frozen=True, slots=True)
class Metric:
    """What an audit has to know of a metric. `known`: aggregator has it."""

    key: str
    aggregation: str = "SUM"
    unique_by: str = ""
    known: bool = True
    dimensions: tuple[str, ...] = ()
    percentiles: bool = False


# Start of a window, and a customer ("": none).
Figures = dict[tuple[datetime, str], Fraction]


class Parts:
    """Calls in the name of nobody; what is refused becomes a StackError."""

    def __init__(
        self,
        ingest: grpc.aio.Channel,
        aggregator: grpc.aio.Channel,
        token: SecretStr,
        organization_id: str,
        mode: common_pb2.Mode.ValueType,
    ) -> None:
        self._replays = ingest_pb2_grpc.IngestInternalServiceStub(ingest)
        self._counts = reconciliation_pb2_grpc.ReconciliationInternalServiceStub(ingest)
        self._audit = audit_pb2_grpc.AuditInternalServiceStub(aggregator)
        self._token = token
        self._whose: dict[str, Any] = {"organization_id": organization_id, "mode": mode}

    async def metrics(self) -> list[Metric]:
        """All that aggregator has."""
        found: list[Metric] = []
        page = aggregator_pb2.ListMetricsRequest(page_size=METRICS_PER_PAGE)
        while True:
            request = audit_pb2.ListTenantMetricsRequest(**self._whose, page=page)
            answer = (await self._call(self._audit.ListTenantMetrics, request)).page
            found += [
                Metric(
                    metric.key,
                    aggregator_pb2.Aggregation.Name(metric.aggregation).removeprefix(
                        "AGGREGATION_"
                    ),
                    metric.unique_by,
                    dimensions=tuple(metric.dimensions),
                    percentiles=metric.percentiles,
                )
                for metric in answer.metrics
            ]
            page.page_token = answer.next_page_token
            if not page.page_token:
                return found

    async def accepted(
        self, start: datetime, end: datetime, metric: str = ""
    ) -> dict[tuple[str, datetime], bool]:
        """(metric, hour) of all that was accepted in [start, end), a day at most; whether some of
        it is still on its way to aggregator.
        """
        request = reconciliation_pb2.CountEventsRequest(
            **self._whose, metric=metric, **_range(start, end)
        )
        return {
            (count.metric, count.hour.ToDatetime(tzinfo=UTC)): count.moving
            async for response in self._stream(self._counts.CountEvents, request)
            for count in response.counts
        }

    async def events(
        self, metric: str, start: datetime, end: datetime
    ) -> AsyncIterator[Sequence[UsageEvent]]:
        """A metric's events that are not void."""
        request = ingest_pb2.ReplayEventsRequest(**self._whose, metric=metric, **_range(start, end))
        async for response in self._stream(self._replays.ReplayEvents, request):
            yield response.events

    async def usage(self, metric: Metric, start: datetime, end: datetime, window: str) -> Figures:
        """What aggregator answers by customer, in windows ("HOUR", "TOTAL")."""
        if not metric.known:
            return {}
        question = aggregator_pb2.QueryUsageRequest(
            metric=metric.key,
            window=aggregator_pb2.Window.Value(f"WINDOW_{window}"),
            group_by=["customerId"],
            page_size=ROWS_PER_PAGE,
            **_range(start, end),
        )
        return {
            (row.start_time.ToDatetime(tzinfo=UTC), row.group["customerId"]): Fraction(row.value)
            async for row in self._usage_rows(question)
        }

    async def groups(
        self, metric: Metric, start: datetime, end: datetime
    ) -> dict[tuple[str, ...], Fraction]:
        """What aggregator answers by values of the metric's dimensions."""
        question = aggregator_pb2.QueryUsageRequest(
            metric=metric.key,
            group_by=metric.dimensions,
            page_size=ROWS_PER_PAGE,
            **_range(start, end),
        )
        return {
            tuple(row.group[name] for name in metric.dimensions): Fraction(row.value)
            async for row in self._usage_rows(question)
        }

    async def percentile(
        self, metric: Metric, start: datetime, end: datetime, name: str
    ) -> Fraction:
        """What aggregator answers: "P50" .. "P99"; 0 without events."""
        question = aggregator_pb2.QueryUsageRequest(
            metric=metric.key,
            percentile=aggregator_pb2.Percentile.Value(f"PERCENTILE_{name}"),
            **_range(start, end),
        )
        return sum([Fraction(row.value) async for row in self._usage_rows(question)], Fraction(0))

    async def _usage_rows(
        self, question: aggregator_pb2.QueryUsageRequest
    ) -> AsyncIterator[aggregator_pb2.UsageRow]:
        """Page after page."""
        while True:
            request = audit_pb2.QueryTenantUsageRequest(**self._whose, question=question)
            usage = (await self._call(self._audit.QueryTenantUsage, request)).usage
            for row in usage.rows:
                yield row
            question.page_token = usage.next_page_token
            if not question.page_token:
                return

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=CALL_S, metadata=internal_metadata(self._token))
        except grpc.aio.AioRpcError as error:
            raise _refused(error) from error

    async def _stream(
        self, method: Any, request: Any, timeout_s: float = CALL_S
    ) -> AsyncIterator[Any]:
        call = method(request, timeout=timeout_s, metadata=internal_metadata(self._token))
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise _refused(error) from error
        finally:
            call.cancel()


def _refused(error: grpc.aio.AioRpcError) -> StackError:
    return StackError(error.details() or error.code().name)


def _range(start: datetime, end: datetime) -> dict[str, Any]:
    """The fields from and to, of which one is a word of Python's."""
    made = {"from": Timestamp(), "to": Timestamp()}
    made["from"].FromDatetime(start)
    made["to"].FromDatetime(end)
    return made


@asynccontextmanager
async def connected(
    where: Where, organization_id: str, mode: common_pb2.Mode.ValueType
) -> AsyncIterator[Parts]:
    """The parts, for one organization and mode."""
    services = [
        descriptor
        for module in (ingest_pb2, reconciliation_pb2, audit_pb2)
        for descriptor in module.DESCRIPTOR.services_by_name.values()
    ]
    async with (
        open_channel(where.ingest, services) as ingest,
        open_channel(where.aggregator, services) as aggregator,
    ):
        yield Parts(ingest, aggregator, where.token, organization_id, mode)
