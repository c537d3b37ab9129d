"""What stands in for the rest of the world: a clock to set, an aggregator to fill, one tenant."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import grpc
from pydantic import SecretStr
from sqlalchemy import text
from usageflow.aggregator.v1 import aggregator_pb2 as pb
from usageflow.aggregator.v1 import aggregator_pb2_grpc

from services.invoicer.advancer import Advancer
from services.invoicer.budget_watcher import BudgetWatcher
from services.invoicer.checks import MetricPriceInput, PlanInput
from services.invoicer.clocks import Clock as TestTime
from services.invoicer.closer import Closer, ClosingSettings
from services.invoicer.credit_expiry import CreditExpiry
from services.invoicer.domain import Invoice, Subscription
from services.invoicer.line_events import CountedUsage
from services.invoicer.payments.keys import ProviderKeys
from services.invoicer.service.billing_settings import BillingSettingsOf, UsualSettings
from services.invoicer.service.budgets import Budgets
from services.invoicer.service.charges import Charges
from services.invoicer.service.clocks import Clocks
from services.invoicer.service.credit_notes import CreditNotes
from services.invoicer.service.credits import Credits
from services.invoicer.service.customers import Customers
from services.invoicer.service.discounts import Discounts
from services.invoicer.service.invoices import InvoiceFilter, Invoices
from services.invoicer.service.paging import Page
from services.invoicer.service.payments import Payments
from services.invoicer.service.plans import Plans
from services.invoicer.service.revenue import Revenues
from services.invoicer.service.subscription_changes import SubscriptionChanges
from services.invoicer.service.subscriptions import SubscriptionInput, Subscriptions
from services.invoicer.service.taxes import Taxes
from services.invoicer.service.wakes import Wakes
from services.invoicer.settings import LATE
from services.invoicer.usage import UsageSource
from services.invoicer.writer import InvoiceWriter
from services.kit.audit import AuditEvent, from_bytes
from services.kit.auth import MODE_NAMES
from services.kit.database import Database, TenantKey
from services.kit.errors import UnavailableError
from services.kit.ids import new_id
from services.kit.metrics import MetricsSource

TOKEN = SecretStr("internal-token-of-32-characters-")
GRACE = timedelta(hours=1)
# The third failed payment suspends a subscription.
RETRY_DAYS = (1, 3)
PROVIDER_SECRET = "p" * 32
PROVIDER_KEYS = ProviderKeys([PROVIDER_SECRET])
# How long after its end a subscription waits for late usage.
LATE_QUIET = timedelta(days=35)


def utc(time: str) -> datetime:
    return datetime.fromisoformat(time).replace(tzinfo=UTC)


def new_tenant(mode: str = "test") -> TenantKey:
    return TenantKey(new_id("org"), mode)


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    time: datetime

    def __call__(self) -> datetime:
        return self.time


@dataclass
class StandInAggregator(aggregator_pb2_grpc.AggregatorInternalServiceServicer):
    """Answers GetBillableUsage from what a test has put in, as of when the test says.

    While `answering` is not set calls wait; `asked` is set when one has come in.
    """

    as_of: datetime
    quantities: dict[tuple[TenantKey, str, str, datetime], Decimal] = field(
        default_factory=lambda: defaultdict(Decimal)
    )
    event_counts: dict[tuple[TenantKey, str, str, datetime], int] = field(default_factory=dict)
    groups: dict[tuple[TenantKey, str, str, datetime], Sequence[tuple[dict[str, str], str]]] = (
        field(default_factory=dict)
    )
    # The amounts of events, as they happened: what ingest would tell.
    amounts_of: dict[tuple[TenantKey, str, str, datetime], Sequence[str]] = field(
        default_factory=dict
    )
    amounts_asked: list[CountedUsage] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)
    # Metrics whose figures do not add up over time.
    peaks: set[str] = field(default_factory=set)
    requests: list[pb.GetBillableUsageRequest] = field(default_factory=list)
    # What figures hold besides what was accepted before `as_of`.
    counted_batch_ids: bytes = b""
    away: bool = False
    forgets: set[str] = field(default_factory=set)
    # None: whatever is asked for is defined.
    defined_metrics: set[str] | None = None
    self_defined_metrics: set[str] = field(default_factory=set)
    archived_metrics: set[str] = field(default_factory=set)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    answering: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answering.set()

    def put(
        self, tenant: TenantKey, customer_id: str, metric: str, start: datetime, quantity: str
    ) -> None:
        """The whole usage of the period that begins at `start`."""
        self.quantities[tenant, customer_id, metric, start] = Decimal(quantity)

    def put_events(
        self, tenant: TenantKey, customer_id: str, metric: str, start: datetime, *amounts: str
    ) -> None:
        """The amounts of all events of the period that begins at `start`."""
        self.put(tenant, customer_id, metric, start, str(sum(map(Decimal, amounts))))
        self.event_counts[tenant, customer_id, metric, start] = len(amounts)
        self.amounts_of[tenant, customer_id, metric, start] = amounts

    async def amounts(
        self, tenant: TenantKey, wanted: CountedUsage
    ) -> AsyncIterator[Sequence[str]]:
        """Of the events that were put in, one at a time, in ingest's place."""
        self.amounts_asked.append(wanted)
        start = wanted.period.start
        for amount in self.amounts_of[tenant, wanted.customer_id, wanted.metric, start]:
            yield [amount]

    def put_groups(
        self,
        tenant: TenantKey,
        customer_id: str,
        metric: str,
        start: datetime,
        *groups: tuple[dict[str, str], str],
    ) -> None:
        """The usage by dimensions of the period that begins at `start`."""
        whole = sum(Decimal(quantity) for _, quantity in groups)
        self.put(tenant, customer_id, metric, start, str(whole))
        self.groups[tenant, customer_id, metric, start] = groups

    async def FindDefinedMetrics(
        self,
        request: pb.FindDefinedMetricsRequest,
        context: grpc.aio.ServicerContext[
            pb.FindDefinedMetricsRequest, pb.FindDefinedMetricsResponse
        ],
    ) -> pb.FindDefinedMetricsResponse:
        """Those that there are, or be away."""
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        asked = set(request.keys)
        return pb.FindDefinedMetricsResponse(
            keys=asked if self.defined_metrics is None else asked & self.defined_metrics,
            self_defined_keys=asked & self.self_defined_metrics,
            archived_keys=asked & self.archived_metrics,
        )

    async def GetBillableUsage(
        self,
        request: pb.GetBillableUsageRequest,
        context: grpc.aio.ServicerContext[pb.GetBillableUsageRequest, pb.GetBillableUsageResponse],
    ) -> pb.GetBillableUsageResponse:
        """Answer, or be away."""
        metadata = dict(context.invocation_metadata() or ())
        assert metadata["x-usageflow-internal-token"] == TOKEN.get_secret_value()
        assert len(request.selections) <= 1_000
        self.requests.append(request)
        self.asked.set()
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        tenant = TenantKey(request.organization_id, MODE_NAMES[request.mode])
        await self.answering.wait()
        response = pb.GetBillableUsageResponse(
            selections=[self._usage(tenant, selection) for selection in request.selections]
        )
        response.as_of.FromDatetime(self.as_of)
        if request.tell_counted:
            response.counted.before.FromDatetime(self.as_of)
            response.counted.batch_ids = self.counted_batch_ids
        return response

    def _usage(self, tenant: TenantKey, selection: pb.UsageSelection) -> pb.SelectionUsage:
        start = getattr(selection, "from").ToDatetime(UTC)
        splits = {split.metric: split for split in selection.splits}
        usage = pb.SelectionUsage()
        for metric in selection.metrics:
            if metric in self.forgets:
                continue
            key = (tenant, selection.customer_id, metric, start)
            quantity = self.quantities[key]
            usage.metrics.add(
                metric=metric,
                quantity=f"{quantity:f}",
                unit=self.units.get(metric, ""),
                event_count=self.event_counts.get(key, 0),
                amount_sum=f"{quantity:f}",
                part_quantities=_parts(splits.get(metric), self.groups.get(key, ())),
                adds_up=metric not in self.peaks,
            )
        return usage


def _parts(split: pb.UsageSplit | None, groups: Sequence[tuple[dict[str, str], str]]) -> list[str]:
    """By the first match that fits, and the rest."""
    if split is None:
        return []
    parts = [Decimal(0)] * (len(split.matches) + 1)
    for group, quantity in groups:
        fits = [group.items() >= dict(match.dimensions).items() for match in split.matches]
        parts[[*fits, True].index(True)] += Decimal(quantity)
    return [f"{part:f}" for part in parts]


def pro_plan(**changes: object) -> PlanInput:
    """Base 100.00 USD, 10,000 calls included then 0.01 each, 0.00002 a token."""
    given: dict[str, object] = {
        "name": "Pro",
        "currency": "USD",
        "base_price": "100.00",
        "billing_period": "MONTHLY",
        "metrics": [
            MetricPriceInput("API_CALL", "PER_UNIT", "10000", {"unitPrice": "0.01"}),
            MetricPriceInput("AI_TOKEN", "PER_UNIT", "", {"unitPrice": "0.00002"}),
        ],
    }
    return PlanInput(**{**given, **changes})  # type: ignore[arg-type]


@dataclass
class StandInClockTimes:
    """Is told what test clocks show: time, or None of one that has ended."""

    told: list[tuple[str, datetime | None]] = field(default_factory=list)
    away: bool = False

    async def tell(self, tenant: TenantKey, clock: TestTime) -> None:
        """Note it, or be away."""
        if self.away:
            raise UnavailableError("away")
        self.told.append((clock.id, None if clock.end_time else clock.target_time))


@dataclass
class World:
    """One invoicer on a real database, with everything around it in the test's hands."""

    database: Database
    clock: Clock
    aggregator: StandInAggregator
    usage: UsageSource
    metrics: MetricsSource
    tenant: TenantKey
    wakes: list[str] = field(default_factory=list)
    clock_times: StandInClockTimes = field(default_factory=StandInClockTimes)
    # Set when a closer has committed invoices.
    committed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        wakes = Wakes(lambda: self.wakes.append("relay"), lambda: self.wakes.append("scheduler"))
        self.customers = Customers(self.database, self.clock)
        self.plans = Plans(self.database, self.clock, self.metrics)
        self.discounts = Discounts(self.database, self.clock)
        self.charges = Charges(self.database, self.clock, wakes)
        self.taxes = Taxes(self.database, self.clock)
        self.credit_notes = CreditNotes(self.database, self.clock, wakes, retry_days=RETRY_DAYS)
        self.credits = Credits(self.database, self.clock, wakes)
        self.subscriptions = Subscriptions(self.database, self.clock, wakes, retry_days=RETRY_DAYS)
        self.changes = SubscriptionChanges(self.database, self.usage, self.clock, wakes, late=LATE)
        self.invoices = Invoices(
            self.database, self.usage, self.clock, wakes, retry_days=RETRY_DAYS, late=LATE
        )
        self.revenues = Revenues(self.database, self.usage, self.clock, LATE)
        self.budgets = Budgets(self.database, self.clock, lambda: self.wakes.append("watcher"))
        self.credit_expiry = CreditExpiry(
            self.database, self.clock, lambda: self.wakes.append("expired"), 1
        )
        self.clocks = Clocks(self.database, self.clock, wakes)
        self.advancer = Advancer(
            self.database, self.clock_times, GRACE, [self.credit_expiry.expire]
        )
        self.settings = BillingSettingsOf(
            self.database, self.clock, wakes, PROVIDER_KEYS, UsualSettings(GRACE, RETRY_DAYS)
        )
        self.payments = Payments(self.database, self.clock, lambda: None)
        self.closer = self.new_closer()

    def new_closer(
        self, *, chunk_max: int = 200, batch_max: int = 25, lease_s: float = 60
    ) -> Closer:
        """Another replica's closer."""
        settings = ClosingSettings(
            grace=GRACE,
            late=LATE,
            lease=timedelta(seconds=lease_s),
            pause=timedelta(0),
            chunk_max=chunk_max,
            batch_max=batch_max,
        )
        writer = InvoiceWriter(
            self.database,
            self.clock,
            self.committed.set,
            writers_max=4,
            late_quiet=LATE_QUIET,
            retry_days=RETRY_DAYS,
        )
        return Closer(self.database, self.usage, writer, settings, self.clock)

    def new_watcher(self, check_s: float = 0) -> BudgetWatcher:
        """Another replica's watcher of budgets, which looks at each in every round."""
        return BudgetWatcher(
            self.database,
            self.usage,
            self.clock,
            self.committed.set,
            late=LATE,
            check_s=check_s,
        )

    def at(self, time: datetime) -> None:
        """Move the clock; aggregator has everything that was accepted until then."""
        self.clock.time = time
        self.aggregator.as_of = time

    async def subscribe(
        self,
        customer_id: str = "user_123",
        *,
        start: datetime | None = None,
        plan: PlanInput | None = None,
        anchor: str = "CALENDAR",
        tenant: TenantKey | None = None,
    ) -> Subscription:
        """A customer on a new plan."""
        tenant = tenant or self.tenant
        made = await self.plans.create_plan(tenant, plan or pro_plan())
        given = SubscriptionInput(customer_id, made.id, start, anchor)
        subscription, _ = await self.subscriptions.create_subscription(tenant, given)
        return subscription

    async def close_all(self) -> int:
        """Close chunk after chunk until nothing is left that can be closed."""
        written = 0
        while count := await self.closer.close_chunk():
            written += count
        return written

    async def go_on(self) -> None:
        """Close, and move test clocks on, until nothing is left that can be done."""
        while await self.closer.close_chunk() or await self.advancer.advance():
            pass

    async def all_invoices(self, tenant: TenantKey | None = None) -> list[Invoice]:
        """Up to 100 invoices, oldest first."""
        found, _ = await self.invoices.list_invoices(
            tenant or self.tenant, InvoiceFilter(), Page(100)
        )
        return found[::-1]

    async def audited(self) -> list[AuditEvent]:
        """What goes to the audit log, in its order."""
        async with self.database.transaction() as connection:
            query = "SELECT payload FROM audit_outbox ORDER BY create_time, message_id"
            rows = await connection.execute(text(query))
            return [from_bytes(payload) for payload in rows.scalars()]
