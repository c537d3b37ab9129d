"""Test clocks, and what is due by them."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Row, insert, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.clocks import Clock
from services.invoicer.tables import test_clocks
from services.kit.tenant import TenantKey

ClockKey = tuple[str, str, str]

# The running one, or else the last that has ended: its time has been reached.
_OF_CUSTOMER = text(
    """
    SELECT * FROM test_clocks
    WHERE (organization_id, mode) = (:organization_id, :mode)
        AND (customer_id IS NULL OR customer_id = :customer_id)
    ORDER BY (end_time IS NULL) DESC, now_time DESC LIMIT 1
    """
)


def now_of_customer(row: str) -> str:
    """SQL of the time of the customer of `row`, which has a tenant and a customer_id; `:now` is the
    real one.
    """
    return f"""
        coalesce((
            SELECT CASE WHEN end_time IS NULL THEN now_time
                ELSE greatest(now_time, CAST(:now AS timestamptz)) END
            FROM test_clocks c
            WHERE (c.organization_id, c.mode) = ({row}.organization_id, {row}.mode)
                AND (c.customer_id IS NULL OR c.customer_id = {row}.customer_id)
            ORDER BY (c.end_time IS NULL) DESC, c.now_time DESC LIMIT 1
        ), CAST(:now AS timestamptz))
    """  # noqa: S608 (no value is pasted in)


# No customer of test mode has a later time: an index finds what may be due by it.
LATEST_NOW = "greatest(CAST(:now AS timestamptz), (SELECT max(now_time) FROM test_clocks))"

_BY_KEY = text(
    """
    SELECT c.* FROM unnest(
        CAST(:organization_id AS text[]), CAST(:mode AS text[]), CAST(:id AS text[])
    ) AS given (organization_id, mode, id)
    JOIN test_clocks c ON (c.organization_id, c.mode, c.id)
        = (given.organization_id, given.mode, given.id)
    """
)

# What was just computed by another time must not be written: a new revision.
_COVER = text(
    """
    UPDATE subscriptions
    SET clock_id = :id, revision = revision + 1, attempt_time = '-infinity'
    WHERE (organization_id, mode) = (:organization_id, :mode)
        AND (CAST(:customer_id AS text) IS NULL OR customer_id = :customer_id)
    """
)

# Who gets a clock has come at least this far by earlier ones.
_REACHED = text(
    """
    SELECT max(now_time) FROM test_clocks
    WHERE (organization_id, mode) = (:organization_id, :mode)
        AND (CAST(:customer_id AS text) IS NULL OR customer_id IS NULL
            OR customer_id = :customer_id)
    """
)

_COUNT_RUNNING = text(
    """
    SELECT count(*) FROM test_clocks
    WHERE (organization_id, mode) = (:organization_id, :mode) AND end_time IS NULL
    """
)

_ADVANCING = text(
    """
    SELECT organization_id, mode, id FROM test_clocks
    WHERE NOT ready AND end_time IS NULL ORDER BY create_time LIMIT :limit
    """
)

# When it is ready, events may have its time: whoever accepts them has to know of it.
_LOCK_ADVANCING = text(
    """
    SELECT * FROM test_clocks
    WHERE (organization_id, mode, id) = (:organization_id, :mode, :id)
        AND NOT ready AND end_time IS NULL AND told_revision = revision
    FOR UPDATE SKIP LOCKED
    """
)

_UNTOLD = text(
    """
    SELECT * FROM test_clocks
    WHERE told_revision < revision ORDER BY create_time LIMIT :limit
    """
)

_NOTE_TOLD = text(
    """
    UPDATE test_clocks SET told_revision = greatest(told_revision, :revision)
    WHERE (organization_id, mode, id) = (:organization_id, :mode, :id)
    """
)

# As closing, credit_expiry and the collector claim them. A debit that a provider decides about
# takes its days by the real time, so nobody waits for it.
_NEXT_DUE = text(
    """
    SELECT least(min(
        CASE
            WHEN opening THEN period_start
            WHEN idle THEN period_end
            ELSE coalesce(period_end, late_check_time) + coalesce(
                (
                    SELECT b.grace FROM billing_settings b
                    WHERE (b.organization_id, b.mode) = (:organization_id, :mode)
                ),
                CAST(:grace AS interval)
            )
        END
    ), (
        SELECT min(g.expire_time) FROM credit_grants g
        WHERE (g.organization_id, g.mode) = (:organization_id, :mode)
            AND (CAST(:customer_id AS text) IS NULL OR g.customer_id = :customer_id)
            AND g.balance > 0
    ), (
        SELECT min(o.next_attempt_time) FROM collections o
        JOIN invoices i ON (i.organization_id, i.mode, i.id)
            = (o.organization_id, o.mode, o.invoice_id)
        WHERE (o.organization_id, o.mode) = (:organization_id, :mode)
            AND (CAST(:customer_id AS text) IS NULL OR i.customer_id = :customer_id)
            AND NOT EXISTS (
                SELECT FROM payment_attempts a
                WHERE (a.organization_id, a.mode, a.invoice_id)
                        = (o.organization_id, o.mode, o.invoice_id)
                    AND a.state = 'PENDING' AND a.reference <> ''
            )
    ))
    FROM subscriptions
    WHERE (organization_id, mode, clock_id) = (:organization_id, :mode, :id)
    """
)


async def insert_clock(connection: AsyncConnection, tenant: TenantKey, clock: Clock) -> None:
    """Store a new clock, on which all are whom it covers.

    IntegrityError when one of them is on a running clock.
    """
    await connection.execute(
        insert(test_clocks).values(
            **tenant._asdict(),
            id=clock.id,
            customer_id=clock.customer_id or None,
            create_time=clock.create_time,
            **_state(clock),
        )
    )
    await connection.execute(
        _COVER, {**tenant._asdict(), "id": clock.id, "customer_id": clock.customer_id or None}
    )


async def update_clock(connection: AsyncConnection, tenant: TenantKey, clock: Clock) -> None:
    """Store what has become of a clock that the caller has locked."""
    await connection.execute(
        update(test_clocks)
        .where(
            test_clocks.c.organization_id == tenant.organization_id,
            test_clocks.c.mode == tenant.mode,
            test_clocks.c.id == clock.id,
        )
        .values(**_state(clock))
    )


async def get_clock(
    connection: AsyncConnection, tenant: TenantKey, clock_id: str, *, lock: bool = False
) -> Clock | None:
    """The clock, or None; with `lock` nobody else changes it until the transaction ends."""
    query = select(test_clocks).where(
        test_clocks.c.organization_id == tenant.organization_id,
        test_clocks.c.mode == tenant.mode,
        test_clocks.c.id == clock_id,
    )
    if lock:
        query = query.with_for_update()
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _clock(row)


async def list_clocks(
    connection: AsyncConnection,
    tenant: TenantKey,
    *,
    customer_id: str,
    before_id: str | None,
    limit: int,
) -> list[Clock]:
    """Up to `limit` clocks, newest first, older than `before_id`; with `customer_id` only those
    that the customer is or was on.
    """
    query = select(test_clocks).where(
        test_clocks.c.organization_id == tenant.organization_id,
        test_clocks.c.mode == tenant.mode,
    )
    if customer_id:
        of_customer = test_clocks.c.customer_id == customer_id
        query = query.where(or_(test_clocks.c.customer_id.is_(None), of_customer))
    if before_id is not None:
        query = query.where(test_clocks.c.id < before_id)
    rows = await connection.execute(query.order_by(test_clocks.c.id.desc()).limit(limit))
    return [_clock(row) for row in rows]


async def clock_of(
    connection: AsyncConnection, tenant: TenantKey, customer_id: str
) -> Clock | None:
    """The clock by which a customer's time is told; None: the real one. Live mode has none."""
    if tenant.mode != "test":
        return None
    given = {**tenant._asdict(), "customer_id": customer_id}
    row = (await connection.execute(_OF_CUSTOMER, given)).one_or_none()
    return None if row is None else _clock(row)


async def clocks_by_key(
    connection: AsyncConnection, keys: Sequence[ClockKey]
) -> dict[ClockKey, Clock]:
    """The clocks with these ids."""
    if not keys:
        return {}
    names = ("organization_id", "mode", "id")
    distinct = sorted(set(keys))
    given = {name: [key[index] for key in distinct] for index, name in enumerate(names)}
    rows = await connection.execute(_BY_KEY, given)
    return {(row.organization_id, row.mode, row.id): _clock(row) for row in rows}


async def time_reached(
    connection: AsyncConnection, tenant: TenantKey, customer_id: str
) -> datetime | None:
    """The furthest that clocks of the customer, or ("") of anybody, have come; None: there are
    none.
    """
    given = {**tenant._asdict(), "customer_id": customer_id or None}
    reached: datetime | None = (await connection.execute(_REACHED, given)).scalar_one()
    return reached


async def count_running(connection: AsyncConnection, tenant: TenantKey) -> int:
    """How many clocks of the organization have not ended."""
    return int((await connection.execute(_COUNT_RUNNING, tenant._asdict())).scalar_one())


async def advancing(connection: AsyncConnection, *, limit: int) -> list[tuple[TenantKey, str]]:
    """Up to `limit` clocks, of all organizations, that have not arrived; oldest first."""
    rows = await connection.execute(_ADVANCING, {"limit": limit})
    return [(TenantKey(row.organization_id, row.mode), row.id) for row in rows]


async def lock_advancing(
    connection: AsyncConnection, tenant: TenantKey, clock_id: str
) -> Clock | None:
    """The clock, which nobody else moves then; None: it has arrived, somebody else moves it, or it
    is not told yet where it goes.
    """
    given = {**tenant._asdict(), "id": clock_id}
    row = (await connection.execute(_LOCK_ADVANCING, given)).one_or_none()
    return None if row is None else _clock(row)


async def untold(connection: AsyncConnection, *, limit: int) -> list[tuple[TenantKey, Clock]]:
    """Up to `limit` clocks, of all organizations, of which others don't know the newest."""
    rows = await connection.execute(_UNTOLD, {"limit": limit})
    return [(TenantKey(row.organization_id, row.mode), _clock(row)) for row in rows]


async def note_told(connection: AsyncConnection, tenant: TenantKey, clock: Clock) -> None:
    """Others know the clock as it is here."""
    given = {**tenant._asdict(), "id": clock.id, "revision": clock.revision}
    await connection.execute(_NOTE_TOLD, given)


async def next_due(
    connection: AsyncConnection, tenant: TenantKey, clock: Clock, grace: timedelta
) -> datetime | None:
    """When, by the clock, the next thing is to be done; None: nothing is.

    `grace`: how long a period that is over waits, unless its organization decided otherwise.
    """
    customer_id = clock.customer_id or None
    given = {**tenant._asdict(), "id": clock.id, "customer_id": customer_id, "grace": grace}
    due: datetime | None = (await connection.execute(_NEXT_DUE, given)).scalar_one()
    return due


def _state(clock: Clock) -> dict[str, object]:
    return {
        "now_time": clock.time,
        "target_time": clock.target_time,
        "ready": clock.ready,
        "accept_time": clock.accept_time,
        "end_time": clock.end_time,
        "revision": clock.revision,
    }


def _clock(row: Row[tuple[object, ...]]) -> Clock:
    return Clock(
        id=row.id,
        customer_id=row.customer_id or "",
        time=row.now_time,
        target_time=row.target_time,
        ready=row.ready,
        accept_time=row.accept_time,
        create_time=row.create_time,
        end_time=row.end_time,
        revision=row.revision,
    )
