"""What a plan would have cost. Nothing is written: every transaction is READ ONLY."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.audit.repository import begin_snapshot
from services.invoicer.closer import (
    MATCH_BYTES_A_CALL_MAX,
    METRICS_A_CALL_MAX,
    SELECTIONS_A_CALL_MAX,
)
from services.invoicer.closing import Selection, Usage
from services.invoicer.plan_metrics import unpriceable
from services.invoicer.repository import plans, simulations
from services.invoicer.simulation import (
    Answers,
    Case,
    CustomerCost,
    Questions,
    Totals,
    case_of,
    case_without_subscription,
    cost_of,
)
from services.invoicer.simulation_checks import Simulation, SimulationInput, check_simulation
from services.invoicer.usage import UsageSource
from services.kit.database import Database, TenantKey
from services.kit.errors import (
    DomainError,
    FieldProblem,
    InvalidArgumentError,
    NotFoundError,
    NotYetError,
)
from services.kit.metrics import MetricsSource

# Customers whose usage is asked for, and who are told, together.
CUSTOMERS_A_PART = 100
CUSTOMERS_MAX = 100_000
# Each keeps a processor busy; others are refused and may come again.
SIMULATIONS_RUNNING_MAX = 2
RETRY_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class SimulatedPart:
    """Some customers; `done` of `customers` have been looked at. `totals` in the last part."""

    costs: Sequence[CustomerCost]
    done: int
    customers: int
    totals: Totals | None = None


class Simulations:
    """Runs a few simulations at a time."""

    def __init__(
        self,
        database: Database,
        usage: UsageSource,
        now: Callable[[], datetime],
        metrics: MetricsSource,
    ) -> None:
        self._database = database
        self._usage = usage
        self._now = now
        self._metrics = metrics
        self._running = 0

    async def simulate(
        self, tenant: TenantKey, given: SimulationInput, *, strict_metrics: bool = False
    ) -> AsyncGenerator[SimulatedPart]:
        """The parts, the last one with the totals; the draft's metrics must be known, as those of a
        plan that is stored. UnavailableError; InvalidArgumentError.
        """
        if self._running >= SIMULATIONS_RUNNING_MAX:
            message = f"{SIMULATIONS_RUNNING_MAX} simulations run already: try again later"
            raise NotYetError(message, retry_after_s=RETRY_AFTER_S)
        self._running += 1
        try:
            refused = await unpriceable(self._metrics, tenant, given.plan, strict=strict_metrics)
            wanted = check_simulation(given, self._now(), refused)
            run = _Run(self._database, self._usage, tenant, wanted, self._now())
            async with aclosing(run.parts()) as parts:
                async for part in parts:
                    yield part
        finally:
            self._running -= 1


@dataclass(frozen=True, slots=True)
class _Loaded:
    """Cases with all that they need to be priced."""

    cases: Sequence[Case]
    answers: Answers
    as_of: Sequence[datetime]


class _Run:
    """One simulation: while one part is priced the next one is asked for."""

    def __init__(
        self,
        database: Database,
        usage: UsageSource,
        tenant: TenantKey,
        wanted: Simulation,
        now: datetime,
    ) -> None:
        self._database = database
        self._usage = usage
        self._tenant = tenant
        self._wanted = wanted
        self._now = now

    async def parts(self) -> AsyncGenerator[SimulatedPart]:
        """The parts, the last one with the totals."""
        customer_ids = await self._customer_ids()
        count = len(customer_ids)
        currency = self._wanted.draft.content.currency
        totals = Totals(currency)
        yield SimulatedPart((), 0, count)
        starts = range(0, count, CUSTOMERS_A_PART)
        chunks = iter([customer_ids[start : start + CUSTOMERS_A_PART] for start in starts])
        loading = self._begin(next(chunks, None))
        done = 0
        try:
            while loading is not None:
                chunk, task = loading
                loaded = await task
                loading = self._begin(next(chunks, None))
                costs = await self._priced(loaded, currency, totals)
                done += len(chunk)
                if done < count:
                    yield SimulatedPart(costs, done, count)
                else:
                    yield SimulatedPart(costs, done, count, totals)
        finally:
            if loading is not None:
                loading[1].cancel()
                with suppress(asyncio.CancelledError, DomainError):
                    await loading[1]
        if not count:
            yield SimulatedPart((), 0, 0, totals)

    def _begin(
        self, chunk: Sequence[str] | None
    ) -> tuple[Sequence[str], asyncio.Task[_Loaded]] | None:
        return None if chunk is None else (chunk, asyncio.create_task(self._load(chunk)))

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        async with self._database.transaction() as connection:
            await begin_snapshot(connection)
            yield connection

    async def _customer_ids(self) -> Sequence[str]:
        """Whom to simulate; InvalidArgumentError: there is no such customer, or too many."""
        wanted = self._wanted
        async with self._reading() as connection:
            if wanted.plan_id and not await plans.get_plan(
                connection, self._tenant, wanted.plan_id
            ):
                raise NotFoundError("No such plan")
            if wanted.customer_ids:
                known = await simulations.time_zones(connection, self._tenant, wanted.customer_ids)
                unknown = [each for each in wanted.customer_ids if each not in known]
                if unknown:
                    problem = FieldProblem("customerIds", f'there is no customer "{unknown[0]}"')
                    raise InvalidArgumentError([problem])
                return wanted.customer_ids
            found = await simulations.find_subscribed(
                connection, self._tenant, wanted.plan_id, self._now, CUSTOMERS_MAX + 1
            )
        if len(found) > CUSTOMERS_MAX:
            message = f"must be given: more than {CUSTOMERS_MAX:,} customers have subscriptions"
            raise InvalidArgumentError([FieldProblem("customerIds", message)])
        return found

    async def _load(self, chunk: Sequence[str]) -> _Loaded:
        cases = await self._cases(chunk)
        questions = Questions()
        for case in cases:
            questions.add(case)
        usages: list[Usage] = []
        as_of = []
        for group in groups(questions.selections()):
            answer = await self._usage.billable(self._tenant, group)
            usages += answer.usages
            as_of.append(answer.as_of)
        return _Loaded(cases, questions.answers(usages), as_of)

    async def _cases(self, chunk: Sequence[str]) -> list[Case]:
        """Of customers who were named all, of others those with a subscription in these months."""
        wanted = self._wanted
        async with self._reading() as connection:
            found = await simulations.subscribed_of(
                connection, self._tenant, chunk, wanted.plan_id, self._now
            )
            zones = {}
            if wanted.customer_ids:
                zones = await simulations.time_zones(connection, self._tenant, chunk)
        cases = []
        for customer_id in chunk:
            case = case_of(
                customer_id, found.get(customer_id, ()), wanted.draft, wanted.months, self._now
            )
            if case.subscriptions:
                cases.append(case)
            elif customer_id in zones and not wanted.plan_id:
                zone = zones[customer_id]
                cases.append(
                    case_without_subscription(
                        self._tenant, customer_id, zone, wanted.draft, wanted.months
                    )
                )
        return cases

    async def _priced(
        self, loaded: _Loaded, currency: str, totals: Totals
    ) -> Sequence[CustomerCost]:
        costs = []
        for as_of in loaded.as_of:
            totals.known_until(as_of)
        for case in loaded.cases:
            cost = cost_of(case, loaded.answers, currency)
            totals.add(cost)
            costs.append(cost)
            # Others have their turn: a customer takes about a millisecond.
            await asyncio.sleep(0)
        return costs


def groups(selections: Sequence[Selection]) -> Iterator[list[Selection]]:
    """In groups that one call to aggregator can answer."""
    group: list[Selection] = []
    metrics = match_bytes = 0
    for each in selections:
        full = len(group) >= SELECTIONS_A_CALL_MAX
        full = full or metrics + len(each.metrics) > METRICS_A_CALL_MAX
        if group and (full or match_bytes + each.match_bytes > MATCH_BYTES_A_CALL_MAX):
            yield group
            group, metrics, match_bytes = [], 0, 0
        group.append(each)
        metrics += len(each.metrics)
        match_bytes += each.match_bytes
    if group:
        yield group
