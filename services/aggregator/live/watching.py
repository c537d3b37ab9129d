"""Answers a question once more whenever what it is about may have changed.

A fold tells which metrics it has counted; what nobody tells (a recount that has ended, a window
that has moved on, a replica that NATS did not reach) is found by asking every RECHECK_S. An answer
is passed on only when its rows have changed. Between two answers of one watch lie at least
ANSWER_EVERY_S, and no more than ASKING_MAX watches ask the database at a time: with many of them
each gets its answers less often, and nobody else waits for a connection. While somebody reads
slowly nothing is asked for him; then he gets what is newest.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator
from dataclasses import replace
from datetime import datetime

from prometheus_client import Gauge

from services.aggregator.metric_repository import MetricKey
from services.aggregator.questions import UsageQuestion
from services.aggregator.recounter import answered
from services.aggregator.usage_service import Usage, UsageAnswers
from services.kit.database import TenantKey
from services.kit.errors import (
    FieldChecks,
    FieldProblem,
    InvalidArgumentError,
    OverloadedError,
    UnavailableError,
)
from services.kit.usage_token import UsageToken
from services.kit.waiting import happens

ANSWER_EVERY_S = 0.5
RECHECK_S = 5.0
WATCH_S_MAX = 3_600.0
ROWS_MAX = 1_000
WATCHES_MAX = 1_000
WATCHES_PER_TENANT_MAX = 50
ASKING_MAX = 2
RETRY_AFTER_S = 5.0

_WATCHES = Gauge("usageflow_usage_watches", "Questions that are being watched")

# When the caller may still see the answers, what a test clock shows to those whom the question is
# about (None: the real time holds); raises otherwise.
StillAllowed = Callable[[], Awaitable[datetime | None]]


class LiveUsage:
    """All that is watched here."""

    def __init__(self, answers: UsageAnswers) -> None:
        self._answers = answers
        self._asking = asyncio.Semaphore(ASKING_MAX)
        self._watches: dict[MetricKey, set[asyncio.Event]] = {}
        self._watches_of: Counter[TenantKey] = Counter()
        self._closed = False

    def changed(self, metrics: Collection[MetricKey]) -> None:
        """Usage of these metrics may have changed; none: of any."""
        for metric in metrics or list(self._watches):
            for event in self._watches.get(metric, ()):
                event.set()

    async def close(self) -> None:
        """End all watches; there are no new ones."""
        self._closed = True
        self.changed(())

    async def watch(
        self,
        tenant: TenantKey,
        asked: UsageQuestion,
        token: UsageToken | None,
        still_allowed: StillAllowed,
    ) -> AsyncGenerator[Usage]:
        """The answer now, with all that `token` stands for, and whenever its rows have changed.

        It ends after WATCH_S_MAX, and at close(). InvalidArgumentError, OverloadedError;
        UnavailableError only before the first answer. What `still_allowed` raises ends it.
        """
        _check(asked)
        with self._place(MetricKey(*tenant, asked.metric), tenant) as event:
            usage = await answered(lambda: self._answers.query(tenant, asked, token))
            _check_rows(asked, usage)
            until_s = time.monotonic() + WATCH_S_MAX
            while not self._closed and time.monotonic() < until_s:
                yield usage
                later = await self._next(tenant, asked, usage, event, still_allowed)
                if later is None:
                    return
                usage = later

    async def _next(
        self,
        tenant: TenantKey,
        asked: UsageQuestion,
        shown: Usage,
        event: asyncio.Event,
        still_allowed: StillAllowed,
    ) -> Usage | None:
        """The next answer with other rows than `shown`; None: it is closed meanwhile."""
        while not self._closed:
            await asyncio.sleep(ANSWER_EVERY_S)
            await happens(event, RECHECK_S - ANSWER_EVERY_S)
            if self._closed:
                break
            # Before the question: what changes from here on is asked for once more.
            event.clear()
            # A clock may have been advanced, and "now" and "this month" with it.
            asked = replace(asked, now=await still_allowed())
            try:
                async with self._asking:
                    usage = await self._answers.query(tenant, asked)
            except UnavailableError:
                event.set()
                continue
            _check_rows(asked, usage)
            if _shown(usage) != _shown(shown):
                return usage
        return None

    @contextlib.contextmanager
    def _place(self, metric: MetricKey, tenant: TenantKey) -> Iterator[asyncio.Event]:
        if self._closed:
            raise UnavailableError("Stopping; try again", retry_after_s=RETRY_AFTER_S)
        if self._watches_of[tenant] >= WATCHES_PER_TENANT_MAX:
            message = f"At most {WATCHES_PER_TENANT_MAX} questions can be watched at a time"
            raise OverloadedError(message, retry_after_s=RETRY_AFTER_S)
        if self._watches_of.total() >= WATCHES_MAX:
            message = "Too many questions are being watched; try again"
            raise OverloadedError(message, retry_after_s=RETRY_AFTER_S)
        event = asyncio.Event()
        self._watches.setdefault(metric, set()).add(event)
        self._watches_of[tenant] += 1
        _WATCHES.inc()
        try:
            yield event
        finally:
            _WATCHES.dec()
            self._watches_of[tenant] -= 1
            if not self._watches_of[tenant]:
                del self._watches_of[tenant]
            self._watches[metric].discard(event)
            if not self._watches[metric]:
                del self._watches[metric]


def _check(asked: UsageQuestion) -> None:
    checks = FieldChecks()
    checks.require(not asked.page_size, "limit", "must be left out: what is watched has no pages")
    checks.require(not asked.page_token, "cursor", "must be left out: what is watched has no pages")
    checks.done()


def _check_rows(asked: UsageQuestion, usage: Usage) -> None:
    if len(usage.rows) > ROWS_MAX:
        field = "groupBy" if asked.group_by else "window"
        message = (
            f"gives more than {ROWS_MAX:,} rows, which is the most that can be watched; take a "
            "longer window, a shorter range, a filter, top or fewer groups"
        )
        raise InvalidArgumentError([FieldProblem(field, message)])


def _shown(usage: Usage) -> Usage:
    """What of an answer makes it another one: not up to when it is complete."""
    return replace(usage, as_of=usage.start)
