"""Periods that are over: claiming them, and what was billed for the ones before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.billing_settings import NO_SETTINGS
from services.invoicer.closing import EarlierPeriod, OpenPeriod
from services.invoicer.domain import Subscription
from services.invoicer.exact import ZERO
from services.invoicer.lines import Billed
from services.invoicer.periods import Period
from services.invoicer.repository import terms
from services.invoicer.repository.billing_settings import settings_of
from services.invoicer.repository.plans import PlanKey, load_plans
from services.invoicer.repository.subscriptions import with_phases
from services.invoicer.repository.taxes import rates_of
from services.invoicer.timed import priced_times

# A lease is by the database's clock, which all replicas share.
_LEASE = """
    UPDATE subscriptions s SET attempt_time = now() + CAST(:lease AS interval)
    FROM due
    WHERE (s.organization_id, s.mode, s.id) = (due.organization_id, due.mode, due.id)
    RETURNING s.*
"""

# Whether what ended at an instant has waited for late events as long as its organization wants.
# The shortest wait of all, which is looked up once, makes of it a range of an index.
_GRACE_IS_OVER = """
    {ended} <= CAST(:now AS timestamptz)
        - least(CAST(:grace AS interval), (SELECT min(grace) FROM billing_settings))
    AND {ended} <= CAST(:now AS timestamptz) - coalesce(
        (
            SELECT b.grace FROM billing_settings b
            WHERE (b.organization_id, b.mode) = (subscriptions.organization_id, subscriptions.mode)
        ),
        CAST(:grace AS interval)
    )
"""

# By the real time; what is on a running test clock has one of its own.
_BY_REAL_TIME = """
    (clock_id IS NULL OR NOT EXISTS (
        SELECT FROM test_clocks c
        WHERE (c.organization_id, c.mode, c.id)
                = (subscriptions.organization_id, subscriptions.mode, subscriptions.clock_id)
            AND c.end_time IS NULL
    ))
"""

_CLAIM = text(
    f"""
    WITH due AS (
        SELECT organization_id, mode, id FROM subscriptions
        WHERE {_GRACE_IS_OVER.format(ended="period_end")}
            AND NOT opening AND NOT idle AND attempt_time <= now()
            AND {_BY_REAL_TIME}
        ORDER BY period_end
        LIMIT :limit
        FOR UPDATE SKIP LOCKED
    )
    {_LEASE}
    """  # noqa: S608 (no value is pasted in)
)

# What needs no grace: openings, and periods of trials and pauses. Indexes hold those, few of which
# are due at any time, and those that have ended and may still have late usage.
_CLAIM_OTHERS = text(
    f"""
    WITH due AS (
        SELECT organization_id, mode, id FROM subscriptions
        WHERE (
                (opening AND period_start <= :now)
                OR (idle AND NOT opening AND period_end <= :now)
                OR ({_GRACE_IS_OVER.format(ended="late_check_time")})
            )
            AND attempt_time <= now() AND {_BY_REAL_TIME}
        ORDER BY coalesce(period_start, late_check_time)
        LIMIT :limit
        FOR UPDATE SKIP LOCKED
    )
    {_LEASE}
    """  # noqa: S608 (no value is pasted in)
)

# The same by the time of running test clocks, of which there are few.
_CLAIM_CLOCKED = text(
    f"""
    WITH due AS (
        SELECT s.organization_id, s.mode, s.id
        FROM test_clocks c JOIN subscriptions s
            ON (s.clock_id, s.organization_id, s.mode) = (c.id, c.organization_id, c.mode)
        WHERE c.end_time IS NULL AND s.attempt_time <= now() AND CASE
            WHEN s.opening THEN s.period_start <= c.now_time
            WHEN s.idle THEN s.period_end <= c.now_time
            ELSE coalesce(s.period_end, s.late_check_time) <= c.now_time - coalesce(
                (
                    SELECT b.grace FROM billing_settings b
                    WHERE (b.organization_id, b.mode) = (c.organization_id, c.mode)
                ),
                CAST(:grace AS interval)
            )
        END
        ORDER BY coalesce(s.period_start, s.late_check_time)
        LIMIT :limit
        FOR UPDATE OF s SKIP LOCKED
    )
    {_LEASE}
    """  # noqa: S608 (no value is pasted in)
)

# Only what nobody has changed since: whoever changed it has made it claimable anew.
_RELEASE = text(
    """
    UPDATE subscriptions s SET attempt_time = now() + CAST(:pause AS interval)
    FROM unnest(
        CAST(:organization_id AS text[]), CAST(:mode AS text[]), CAST(:id AS text[]),
        CAST(:revision AS bigint[])
    ) AS given (organization_id, mode, id, revision)
    WHERE (s.organization_id, s.mode, s.id, s.revision)
        = (given.organization_id, given.mode, given.id, given.revision)
    """
)

_ADVANCE = text(
    """
    UPDATE subscriptions s
    SET period_start = given.period_start, period_end = given.period_end,
        exact_period_start = given.exact_period_start,
        opening = given.opening, idle = given.idle, late_check_time = given.late_check_time,
        attempt_time = '-infinity', revision = s.revision + 1
    FROM unnest(
        CAST(:organization_id AS text[]), CAST(:mode AS text[]), CAST(:id AS text[]),
        CAST(:revision AS bigint[]), CAST(:period_start AS timestamptz[]),
        CAST(:period_end AS timestamptz[]), CAST(:exact_period_start AS timestamptz[]),
        CAST(:opening AS boolean[]), CAST(:idle AS boolean[]),
        CAST(:late_check_time AS timestamptz[])
    ) AS given (organization_id, mode, id, revision, period_start, period_end, exact_period_start,
        opening, idle, late_check_time)
    WHERE (s.organization_id, s.mode, s.id, s.revision)
        = (given.organization_id, given.mode, given.id, given.revision)
    RETURNING s.id
    """
)

_COUNT_DUE = text(
    f"""
    SELECT count(*) FROM subscriptions
    WHERE {_GRACE_IS_OVER.format(ended="period_end")} AND {_BY_REAL_TIME}
    """  # noqa: S608 (no value is pasted in)
)

# More periods than 400 days can hold, also of a week. The order makes PostgreSQL take the index
# that begins with the subscription, also when it knows nothing yet of how many invoices the tenant
# has.
EARLIER_PERIODS_MAX = 100

_EARLIER_INVOICES = """
    unnest(
        CAST(:organization_id AS text[]), CAST(:mode AS text[]), CAST(:id AS text[]),
        CAST(:period_start AS timestamptz[])
    ) AS given (organization_id, mode, id, period_start)
    CROSS JOIN LATERAL (
        SELECT * FROM invoices
        WHERE (organization_id, mode, subscription_id)
                = (given.organization_id, given.mode, given.id)
            AND status <> 'VOID'
            AND kind = 'PERIOD'
            AND period_start < given.period_start
            AND period_end > given.period_start - CAST(:late AS interval)
        ORDER BY subscription_id, organization_id, mode, period_start
        LIMIT :earlier_max
    ) AS i
"""

_EARLIER = text(
    f"""
    SELECT i.organization_id, i.mode, i.subscription_id, i.id, i.period_start, i.period_end,
        i.exact_period_start, i.exact_period_end, i.plan_id, i.plan_version
    FROM {_EARLIER_INVOICES}
    ORDER BY i.organization_id, i.mode, i.subscription_id, i.period_start
    """  # noqa: S608 (no value is pasted in)
)

# A line about a period stands on the period's own invoice or on a later one, or it is what a credit
# note changed of it.
_BILLED = text(
    f"""
    SELECT i.organization_id, i.mode, i.subscription_id, l.period_start, l.metric,
        sum(l.quantity) AS quantity, sum(l.amount) AS amount
    FROM {_EARLIER_INVOICES}
    CROSS JOIN LATERAL {terms.BILLED_LINES} AS l
    WHERE l.metric IS NOT NULL
    GROUP BY i.organization_id, i.mode, i.subscription_id, l.period_start, l.metric
    """  # noqa: S608 (no value is pasted in)
)

# Of all invoices that are not void, however old.
_CARRIED = text(
    """
    SELECT given.organization_id, given.mode, given.id, sum(l.amount) AS amount
    FROM unnest(CAST(:organization_id AS text[]), CAST(:mode AS text[]), CAST(:id AS text[]))
        AS given (organization_id, mode, id)
    JOIN invoices i ON (i.organization_id, i.mode, i.subscription_id)
        = (given.organization_id, given.mode, given.id) AND i.status <> 'VOID'
    JOIN invoice_lines l ON (l.organization_id, l.mode, l.invoice_id)
        = (i.organization_id, i.mode, i.id) AND l.kind = 'CREDIT_CARRIED'
    GROUP BY given.organization_id, given.mode, given.id
    """
)

_PREFER_INDEXES = text("SET LOCAL enable_seqscan = off")

_SubscriptionKey = tuple[str, str, str]


async def prefer_indexes(connection: AsyncConnection) -> None:
    """Let no statement of this transaction read whole tables, nor triggers and foreign keys.

    PostgreSQL keeps the plans of those for a connection's life, or until it next takes statistics.
    One made for a nearly empty table reads all of it; while thousands of invoices are written, the
    cost of each grows with those before (2,000: 2.0 ms of PostgreSQL each in place of 0.5).
    """
    await connection.execute(_PREFER_INDEXES)


@dataclass(frozen=True, slots=True)
class Advance:
    """What a subscription goes on with: the period that follows, None when it has ended; whether
    that begins with an opening, and has an invoice; and until when late usage is waited for.
    """

    subscription: Subscription
    period: Period | None
    opening: bool = False
    idle: bool = False
    late_check_time: datetime | None = None


async def claim_due(
    connection: AsyncConnection,
    now: datetime,
    grace: timedelta,
    *,
    limit: int,
    lease: timedelta,
) -> list[Subscription]:
    """Up to `limit` subscriptions whose period ended `grace` ago, or as long ago as their
    organization wants, oldest first, not claimed by others.

    They stay claimed for `lease`, or until they are released or changed.
    """
    given = {"now": now, "grace": grace, "limit": limit, "lease": lease}
    rows = await connection.execute(_CLAIM, given)
    return await with_phases(connection, rows.all())


async def claim_others(
    connection: AsyncConnection,
    now: datetime,
    grace: timedelta,
    *,
    limit: int,
    lease: timedelta,
) -> list[Subscription]:
    """Up to `limit` subscriptions whose opening is due, whose trial's or pause's period is over,
    or that have ended and are to be looked at for late usage.

    They stay claimed as with claim_due, which leaves them out: the opening comes first.
    """
    given = {"now": now, "grace": grace, "limit": limit, "lease": lease}
    rows = await connection.execute(_CLAIM_OTHERS, given)
    return await with_phases(connection, rows.all())


async def claim_clocked(
    connection: AsyncConnection, grace: timedelta, *, limit: int, lease: timedelta
) -> list[Subscription]:
    """Up to `limit` subscriptions on test clocks that something is due for by their time.

    They stay claimed as with claim_due.
    """
    given = {"grace": grace, "limit": limit, "lease": lease}
    rows = await connection.execute(_CLAIM_CLOCKED, given)
    return await with_phases(connection, rows.all())


async def release(
    connection: AsyncConnection, claimed: Sequence[Subscription], pause: timedelta
) -> None:
    """Let the subscriptions be claimed again after `pause`."""
    if not claimed:
        return
    await connection.execute(_RELEASE, {**_revisions(claimed), "pause": pause})


async def advance(connection: AsyncConnection, following: Sequence[Advance]) -> set[str]:
    """Move subscriptions on to the periods that follow; whose were moved.

    Those that somebody else has changed since they were read stay as they are.
    """
    periods = [each.period for each in following]
    given = {
        **_revisions([each.subscription for each in following]),
        "period_start": [period and period.start for period in periods],
        "period_end": [period and period.end for period in periods],
        "exact_period_start": [
            each.period and each.subscription.exact_at(each.period.start) for each in following
        ],
        "opening": [each.opening for each in following],
        "idle": [each.idle for each in following],
        "late_check_time": [each.late_check_time for each in following],
    }
    return set((await connection.execute(_ADVANCE, given)).scalars())


def _revisions(subscriptions: Sequence[Subscription]) -> dict[str, object]:
    """Which revisions of which subscriptions are meant, in arrays."""
    return {
        "organization_id": [s.tenant.organization_id for s in subscriptions],
        "mode": [s.tenant.mode for s in subscriptions],
        "id": [s.id for s in subscriptions],
        "revision": [s.revision for s in subscriptions],
    }


async def count_due(connection: AsyncConnection, now: datetime, grace: timedelta) -> int:
    """How many subscriptions have a period whose grace is over and that is not invoiced."""
    count = await connection.execute(_COUNT_DUE, {"now": now, "grace": grace})
    return int(count.scalar_one())


async def open_periods(
    connection: AsyncConnection, subscriptions: Sequence[Subscription], late: timedelta
) -> list[OpenPeriod]:
    """The next period of each that has one, with its plan and the earlier ones to look at again.

    Earlier periods are those invoiced that ended less than `late` before the next one begins;
    not the ones whose invoice is void: they are not billed at all.
    """
    live = [(s, period) for s in subscriptions if (period := _open_period(s)) is not None]
    if not live:
        return []
    given = {
        "organization_id": [s.tenant.organization_id for s, _ in live],
        "mode": [s.tenant.mode for s, _ in live],
        "id": [s.id for s, _ in live],
        "period_start": [period.start for _, period in live],
        "late": late,
        "earlier_max": EARLIER_PERIODS_MAX,
    }
    earlier_rows = (await connection.execute(_EARLIER, given)).all()
    billed = await _billed(connection, given)
    carried = await _carried(connection, given)
    keys = [_plan_at(s, period.start) for s, period in live]
    keys += [_plan_at(s, period.end) for s, period in live]
    keys += [PlanKey(r.organization_id, r.mode, r.plan_id, r.plan_version) for r in earlier_rows]
    keys += [key for s, period in live for key in _other_plans(s, period)]
    plans = await load_plans(connection, keys)
    earlier: dict[_SubscriptionKey, list[EarlierPeriod]] = {}
    for row in earlier_rows:
        key = (row.organization_id, row.mode, row.subscription_id)
        plan = plans[PlanKey(row.organization_id, row.mode, row.plan_id, row.plan_version)]
        found = EarlierPeriod(
            row.id,
            Period(row.period_start, row.period_end),
            plan.content,
            billed.get((key, row.period_start), {}),
            row.exact_period_start and Period(row.exact_period_start, row.exact_period_end),
        )
        earlier.setdefault(key, []).append(found)
    found_terms = await terms.find_terms(connection, [(*s.tenant, s.id) for s, _ in live])
    decided = await settings_of(connection, [s.tenant for s, _ in live])
    rates = await rates_of(connection, [(*s.tenant, s.customer_id) for s, _ in live])
    periods = [
        OpenPeriod(
            subscription=s,
            plan=plans[_plan_at(s, period.start)],
            next_plan=plans[_plan_at(s, period.end)] if s.part_from(period.end) else None,
            time_plans=tuple(plans[key] for key in _other_plans(s, period)),
            period=period,
            earlier=tuple(earlier.get((*s.tenant, s.id), ())),
            carried=carried.get((*s.tenant, s.id), ZERO),
            charges=found_terms.charges.get((*s.tenant, s.id), ()),
            discounts=found_terms.discounts.get((*s.tenant, s.id), ()),
            tax_rates=rates.get((*s.tenant, s.customer_id), ()),
            settings=decided.get(s.tenant, NO_SETTINGS),
        )
        for s, period in live
    ]
    periods = await _with_prepaid(connection, periods)
    return await _with_billed_parts(connection, periods, late)


async def _with_billed_parts(
    connection: AsyncConnection, periods: Sequence[OpenPeriod], late: timedelta
) -> list[OpenPeriod]:
    """The same, with what was billed where sums of a period may be changed."""
    changing = [
        ((*each.subscription.tenant, each.subscription.id), each.period.start)
        for each in periods
        if each.may_change_sums
    ]
    parts = await terms.billed_parts(connection, changing, late)
    return [
        replace(each, billed_parts=parts.get((*each.subscription.tenant, each.subscription.id), ()))
        for each in periods
    ]


async def _with_prepaid(
    connection: AsyncConnection, periods: Sequence[OpenPeriod]
) -> list[OpenPeriod]:
    """The same, with base prices of the period that earlier invoices charged."""
    asked = [
        (
            (*each.subscription.tenant, each.subscription.id),
            each.period,
            each.subscription.exact_at(each.period.start),
        )
        for each in periods
        if each.may_be_prepaid
    ]
    found = await terms.prepaid_of(connection, asked)
    return [
        replace(each, prepaid=found.get((*each.subscription.tenant, each.subscription.id), ()))
        for each in periods
    ]


async def _billed(
    connection: AsyncConnection, given: dict[str, object]
) -> dict[tuple[_SubscriptionKey, datetime], dict[str, Billed]]:
    """What was billed, by subscription and start of the period, then by metric."""
    billed: dict[tuple[_SubscriptionKey, datetime], dict[str, Billed]] = {}
    for row in await connection.execute(_BILLED, given):
        key = ((row.organization_id, row.mode, row.subscription_id), row.period_start)
        billed.setdefault(key, {})[row.metric] = Billed(row.quantity, row.amount)
    return billed


async def _carried(
    connection: AsyncConnection, given: Mapping[str, object]
) -> dict[_SubscriptionKey, Decimal]:
    """The credit that each subscription's invoices have carried and not used up; none: left out."""
    keys = {name: given[name] for name in ("organization_id", "mode", "id")}
    rows = await connection.execute(_CARRIED, keys)
    return {(row.organization_id, row.mode, row.id): row.amount for row in rows}


def _open_period(subscription: Subscription) -> Period | None:
    """What is to be invoiced next; of one that has ended, the time that late usage may come in."""
    if subscription.period is not None or subscription.late_check_time is None:
        return subscription.period
    assert subscription.cancel_time is not None
    return Period(subscription.cancel_time, subscription.late_check_time)


def _other_plans(subscription: Subscription, period: Period) -> list[PlanKey]:
    """The plans that time of the period is of besides that of its usage."""
    if len(subscription.phases) == 1:
        return []
    return [
        PlanKey(*subscription.tenant, time.phase.plan_id, time.phase.plan_version)
        for time in priced_times(subscription, period)[1:]
    ]


def _plan_at(subscription: Subscription, instant: datetime) -> PlanKey:
    phase = subscription.phase_at(instant)
    return PlanKey(*subscription.tenant, phase.plan_id, phase.plan_version)
