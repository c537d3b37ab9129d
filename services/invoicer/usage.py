"""Usage for billing, as aggregator tells it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Protocol

import grpc
from pydantic import SecretStr
from usageflow.aggregator.v1 import aggregator_pb2, aggregator_pb2_grpc

from services.invoicer.closing import Selection, Usage
from services.invoicer.domain import MetricPrice
from services.invoicer.exact import total
from services.invoicer.pricing.dimensional import Dimensional
from services.invoicer.pricing.percentage import Percentage
from services.invoicer.pricing.usage import MetricUsage
from services.invoicer.readings import Counted
from services.kit.auth import MODE_NUMBERS
from services.kit.database import TenantKey
from services.kit.errors import UnavailableError, from_rpc_error
from services.kit.grpc_client import internal_metadata


@dataclass(frozen=True, slots=True)
class BillableUsage:
    """One usage for each selection, in order; everything accepted before `as_of` is in.

    `counted`: what is in, exactly; None: nobody asked.
    """

    as_of: datetime
    usages: list[Usage]
    counted: Counted | None = None


class UsageSource(Protocol):
    """Where usage comes from."""

    async def billable(
        self, tenant: TenantKey, selections: Sequence[Selection], *, tell_counted: bool = False
    ) -> BillableUsage:
        """The usage of at most 1,000 selections. UnavailableError when it can't be told now."""


class AggregatorUsage:
    """A UsageSource that asks aggregator over gRPC."""

    def __init__(self, channel: grpc.aio.Channel, token: SecretStr, timeout_s: float) -> None:
        self._stub = aggregator_pb2_grpc.AggregatorInternalServiceStub(channel)
        self._token = token
        self._timeout_s = timeout_s

    async def billable(
        self, tenant: TenantKey, selections: Sequence[Selection], *, tell_counted: bool = False
    ) -> BillableUsage:
        """The usage of at most 1,000 selections. UnavailableError when it can't be told now."""
        request = aggregator_pb2.GetBillableUsageRequest(
            organization_id=tenant.organization_id,
            mode=MODE_NUMBERS[tenant.mode],
            selections=[_selection(selection) for selection in selections],
            tell_counted=tell_counted,
        )
        try:
            response = await self._stub.GetBillableUsage(
                request, timeout=self._timeout_s, metadata=internal_metadata(self._token)
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        if tell_counted and not response.HasField("counted"):
            # An aggregator from before this question: bills wait until it is replaced.
            raise UnavailableError("aggregator did not tell what it has counted")
        return _billable_usage(selections, response)


def _selection(selection: Selection) -> aggregator_pb2.UsageSelection:
    message = aggregator_pb2.UsageSelection(
        customer_id=selection.customer_id,
        metrics=selection.metrics,
        splits=[
            _split(price.metric, price.model)
            for price in selection.prices
            if isinstance(price.model, Dimensional)
        ],
    )
    # Not "message.from": that is a word of Python's.
    getattr(message, "from").FromDatetime(selection.period.start)
    message.to.FromDatetime(selection.period.end)
    return message


def _split(metric: str, model: Dimensional) -> aggregator_pb2.UsageSplit:
    matches = [aggregator_pb2.DimensionMatch(dimensions=dict(each.match)) for each in model.tried]
    return aggregator_pb2.UsageSplit(metric=metric, matches=matches)


def _metric_usage(price: MetricPrice, told: aggregator_pb2.MetricUsage) -> MetricUsage:
    """Of a percentage the quantity is the sum of the amounts, however the metric counts."""
    if isinstance(price.model, Percentage):
        amount = Decimal(told.amount_sum or "0")
        return MetricUsage(amount, told.unit, event_count=told.event_count)
    if isinstance(price.model, Dimensional):
        parts = price.model.parts([Decimal(text) for text in told.part_quantities])
        quantity = total(part.quantity for part in parts)
        return MetricUsage(quantity, told.unit, parts=parts, adds_up=told.adds_up)
    return MetricUsage(Decimal(told.quantity), told.unit, adds_up=told.adds_up)


def _billable_usage(
    selections: Sequence[Selection], response: aggregator_pb2.GetBillableUsageResponse
) -> BillableUsage:
    """UnavailableError when the answer is not to what was asked: never bill on a guess."""
    asked = [list(selection.metrics) for selection in selections]
    answered = [[metric.metric for metric in usage.metrics] for usage in response.selections]
    if asked != answered or not response.HasField("as_of"):
        raise UnavailableError("aggregator answered something else than was asked")
    usages: list[Usage] = [
        {
            price.metric: _metric_usage(price, told)
            for price, told in zip(selection.prices, usage.metrics, strict=True)
        }
        for selection, usage in zip(selections, response.selections, strict=True)
    ]
    counted = None
    if response.HasField("counted"):
        told = response.counted
        counted = Counted(told.before.ToDatetime(UTC), told.batch_ids)
    return BillableUsage(response.as_of.ToDatetime(UTC), usages, counted)
