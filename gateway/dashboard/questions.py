"""What several pages ask the services."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final, TypeVar

from usageflow.aggregator.v1 import aggregator_pb2
from usageflow.invoicer.v1 import invoicer_pb2

from gateway.calls import Calls
from gateway.shapes import invoices, metrics, plans, usage
from gateway.shapes.invoices import Invoice
from gateway.shapes.metrics import Metric
from gateway.shapes.plans import Plan
from gateway.shapes.usage import Usage, UsageQuery
from services.kit.errors import NotFoundError
from services.kit.pages import PAGE_SIZE_MAX

# Of lists that a page needs whole, for its choices and sums.
PAGES_MAX: Final = 5
AT_ONCE_MAX: Final = 8

Item = TypeVar("Item")
Answer = TypeVar("Answer")


async def every(page: Callable[[str], Awaitable[tuple[list[Item], str]]]) -> list[Item]:
    """The elements of a list's first PAGES_MAX pages; `page` gives one for its token."""
    found: list[Item] = []
    token = ""
    for _ in range(PAGES_MAX):
        items, token = await page(token)
        found += items
        if not token:
            break
    return found


async def together(asked: Sequence[Awaitable[Answer]]) -> list[Answer]:
    """All answers, at most AT_ONCE_MAX asked for at a time."""
    room = asyncio.Semaphore(AT_ONCE_MAX)

    async def one(each: Awaitable[Answer]) -> Answer:
        async with room:
            return await each

    return await asyncio.gather(*(one(each) for each in asked))


async def all_metrics(calls: Calls) -> list[Metric]:
    """The metrics, in the order of their keys."""

    async def page(token: str) -> tuple[list[Metric], str]:
        request = aggregator_pb2.ListMetricsRequest(page_size=PAGE_SIZE_MAX, page_token=token)
        answer = await calls.call(calls.aggregator.ListMetrics, request)
        return [metrics.from_proto(each) for each in answer.metrics], answer.next_page_token

    return sorted(await every(page), key=lambda metric: metric.key)


async def all_plans(calls: Calls) -> list[Plan]:
    """The newest versions of the plans, newest first."""

    async def page(token: str) -> tuple[list[Plan], str]:
        request = invoicer_pb2.ListPlansRequest(page_size=PAGE_SIZE_MAX, page_token=token)
        answer = await calls.call(calls.invoicer.ListPlans, request)
        return [plans.from_proto(each) for each in answer.plans], answer.next_page_token

    return await every(page)


async def ask_usage(calls: Calls, asked: UsageQuery) -> Usage:
    """Usage, by the metric's own figure."""
    request = usage.to_proto(asked, "")
    return usage.from_proto(await calls.call(calls.aggregator.QueryUsage, request))


async def invoices_since(calls: Calls, start: datetime, customer_id: str = "") -> list[Invoice]:
    """Invoices that were made since then, newest first."""

    async def page(token: str) -> tuple[list[Invoice], str]:
        request = invoicer_pb2.ListInvoicesRequest(
            customer_id=customer_id, page_size=PAGE_SIZE_MAX, page_token=token
        )
        answer = await calls.call(calls.invoicer.ListInvoices, request)
        made = [invoices.from_proto(each) for each in answer.invoices]
        recent = [each for each in made if each.created_at and each.created_at >= start]
        return recent, answer.next_page_token if len(recent) == len(made) else ""

    return await every(page)


async def found(asked: Awaitable[Answer]) -> Answer | None:
    """The answer; None when there is no such thing."""
    try:
        return await asked
    except NotFoundError:
        return None
