"""SQL of the delivery queue: what workers claim, and what came of it.

A claim is a lease: until it runs out no other worker takes the delivery; a worker that dies is
replaced when it has run out. Claiming costs the same however many deliveries wait, and whoever
they wait for: workers walk over the endpoints that have something pending (a loose scan of one
small index) and take a few deliveries from each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.notifier.domain import Attempt

BUCKET = timedelta(seconds=1)  # so much of a rate limit may be used at once


@dataclass(frozen=True, slots=True)
class Claim:
    """A delivery that this worker may attempt until `lease_until`."""

    delivery_id: str
    event_id: str
    endpoint_id: str
    organization_id: str
    schedule_step: int
    lease_until: datetime
    body: bytes
    # Whether the endpoint was failing or throttled: then a success is news too (health.py).
    ailing: bool = False


@dataclass(frozen=True, slots=True)
class Visited:
    """An endpoint with pending deliveries, and what of its state counts for how many to claim.

    `resting`: nothing is sent now. `probing`: it throttled, and is to be tried with one webhook.
    """

    endpoint_id: str
    organization_id: str
    rate_limit: int
    resting: bool
    probing: bool


@dataclass(frozen=True, slots=True)
class Target:
    """Where an endpoint's webhooks go and what they carry; secrets as they are stored, sealed.

    `secrets` are (kind, sealed) of each key that signs now, the newest first.
    """

    url: str
    sealed_headers: bytes | None
    secrets: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a claim: the attempt, and the delivery's state because of it."""

    claim: Claim
    attempt: Attempt
    status: str
    next_attempt_time: datetime | None


VISIT = text(
    """
WITH RECURSIVE visited (endpoint_id, place) AS (
    (SELECT endpoint_id, 1 FROM deliveries
     WHERE status = 'pending' AND endpoint_id > :after ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.endpoint_id FROM deliveries d
            WHERE d.status = 'pending' AND d.endpoint_id > v.endpoint_id
            ORDER BY d.endpoint_id LIMIT 1), v.place + 1
    FROM visited v WHERE v.endpoint_id IS NOT NULL AND v.place < :endpoints_max
)
SELECT e.id, e.organization_id, e.rate_limit, e.throttle_step > 0 AS probing,
    e.throttle_until > CAST(:now AS timestamptz) IS TRUE AS resting
FROM visited v JOIN endpoints e ON e.id = v.endpoint_id
ORDER BY v.place
"""
)


async def endpoints_with_pending(
    connection: AsyncConnection, *, after: str, limit: int, now: datetime
) -> list[Visited]:
    """Up to `limit` endpoints with pending deliveries, by id from `after` on.

    Whether anything is due already, claim() finds out.
    """
    rows = await connection.execute(VISIT, {"after": after, "endpoints_max": limit, "now": now})
    return [
        Visited(row.id, row.organization_id, row.rate_limit, row.resting, row.probing)
        for row in rows
    ]


# A rate limit is a bucket that holds what a second allows: `paced_until` is the time up to which
# it is used up. Whoever claims for such an endpoint holds its row, so that workers share the rate;
# an endpoint that another worker is just claiming for is left out.
_ALLOWANCES = text(
    """
SELECT id, CAST(floor(rate_limit * extract(epoch FROM CAST(:now AS timestamptz)
        - greatest(paced_until, CAST(:bucket_start AS timestamptz)))) AS int) AS allowance
FROM endpoints WHERE id = ANY(CAST(:endpoint_ids AS text[]))
ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
"""
)


async def allowances(
    connection: AsyncConnection, endpoint_ids: Sequence[str], now: datetime
) -> dict[str, int]:
    """How many webhooks the rate limits of these endpoints allow now; note_paced() uses them up."""
    values = {"endpoint_ids": list(endpoint_ids), "now": now, "bucket_start": now - BUCKET}
    rows = await connection.execute(_ALLOWANCES, values)
    return {row.id: row.allowance for row in rows}


_NOTE_PACED = text(
    """
UPDATE endpoints e SET
    paced_until = greatest(e.paced_until, CAST(:bucket_start AS timestamptz))
        + c.claimed * interval '1 second' / e.rate_limit
FROM unnest(CAST(:endpoint_ids AS text[]), CAST(:counts AS int[])) AS c (id, claimed)
WHERE e.id = c.id AND e.rate_limit > 0
"""
)


async def note_paced(
    connection: AsyncConnection, claimed: Mapping[str, int], now: datetime
) -> None:
    """Use up what was claimed of allowances, in the transaction that asked for them."""
    values = {
        "endpoint_ids": list(claimed),
        "counts": list(claimed.values()),
        "bucket_start": now - BUCKET,
    }
    await connection.execute(_NOTE_PACED, values)


# Deliveries whose endpoint was deleted or disabled end here instead of being claimed.
CLAIM = text(
    """
WITH due AS (
    SELECT d.id
    FROM unnest(CAST(:endpoint_ids AS text[]), CAST(:limits AS int[]))
        AS visited (endpoint_id, claims_max)
    CROSS JOIN LATERAL (
        SELECT id FROM deliveries
        WHERE endpoint_id = visited.endpoint_id AND status = 'pending'
            AND next_attempt_time <= :now AND (lease_until IS NULL OR lease_until <= :now)
        ORDER BY next_attempt_time LIMIT visited.claims_max
        FOR UPDATE SKIP LOCKED
    ) d
    LIMIT :claims_max
)
UPDATE deliveries d SET
    status = CASE WHEN e.enabled THEN 'pending' WHEN e.delete_time IS NULL THEN 'failed'
        ELSE 'dropped' END,
    next_attempt_time = CASE WHEN e.enabled THEN d.next_attempt_time END,
    lease_until = CASE WHEN e.enabled THEN CAST(:lease_until AS timestamptz) END
FROM due, endpoints e, webhook_events w
WHERE d.id = due.id AND e.id = d.endpoint_id
    AND w.organization_id = d.organization_id AND w.mode = d.mode AND w.id = d.event_id
RETURNING d.id, d.event_id, d.endpoint_id, d.organization_id, d.schedule_step, d.lease_until,
    w.body, e.failing_since IS NOT NULL OR e.throttle_step > 0 AS ailing
"""
)


async def claim(
    connection: AsyncConnection,
    limits: Mapping[str, int],
    *,
    now: datetime,
    lease_until: datetime,
    claims_max: int,
) -> list[Claim]:
    """Lease due deliveries of the endpoints in `limits`, at most so many of each, oldest first."""
    rows = await connection.execute(
        CLAIM,
        {
            "endpoint_ids": list(limits),
            "limits": list(limits.values()),
            "now": now,
            "lease_until": lease_until,
            "claims_max": claims_max,
        },
    )
    # The columns are those of Claim, in their order.
    claims = [Claim(*row) for row in rows if row.lease_until is not None]
    return sorted(claims, key=lambda claimed: claimed.delivery_id)


_TARGETS = text(
    """
SELECT e.id, e.url, e.sealed_headers,
    array_agg(s.kind ORDER BY s.id DESC) AS kinds,
    array_agg(s.sealed ORDER BY s.id DESC) AS sealed
FROM endpoints e JOIN endpoint_secrets s ON s.endpoint_id = e.id
WHERE e.id = ANY(CAST(:endpoint_ids AS text[])) AND e.enabled AND s.sealed IS NOT NULL
    AND (s.expire_time IS NULL OR s.expire_time > :now)
GROUP BY e.id
"""
)


async def targets(
    connection: AsyncConnection, endpoint_ids: Sequence[str], now: datetime
) -> dict[str, Target]:
    """Where the webhooks of these endpoints go; of a disabled or deleted one there is none."""
    rows = await connection.execute(_TARGETS, {"endpoint_ids": list(endpoint_ids), "now": now})
    return {
        row.id: Target(row.url, row.sealed_headers, tuple(zip(row.kinds, row.sealed, strict=True)))
        for row in rows
    }


_RELEASE = text(
    """
UPDATE deliveries d SET lease_until = NULL
FROM unnest(CAST(:delivery_ids AS text[]), CAST(:leases AS timestamptz[])) AS c (id, lease_until)
WHERE d.id = c.id AND d.lease_until = c.lease_until
"""
)


async def release(connection: AsyncConnection, claims: Sequence[Claim]) -> None:
    """Give claims back that were not attempted."""
    await connection.execute(
        _RELEASE,
        {
            "delivery_ids": [claimed.delivery_id for claimed in claims],
            "leases": [claimed.lease_until for claimed in claims],
        },
    )


# Every attempt took place, so every attempt is recorded. But who lost the lease meanwhile (the
# process was stopped for a minute, say) decides nothing, unless it succeeded.
_DECIDES = """(r.status = 'succeeded' AND d.status IN ('pending', 'failed')
            OR (d.status = 'pending' AND d.lease_until = r.lease_until) IS TRUE)"""
_RECORD = text(
    """
WITH results AS (
    SELECT * FROM unnest(
        CAST(:delivery_ids AS text[]), CAST(:leases AS timestamptz[]), CAST(:statuses AS text[]),
        CAST(:next_attempt_times AS timestamptz[]), CAST(:start_times AS timestamptz[]),
        CAST(:durations_ms AS int[]), CAST(:response_statuses AS smallint[]),
        CAST(:errors AS text[]), CAST(:response_bodies AS bytea[])
    ) AS r (delivery_id, lease_until, status, next_attempt_time, start_time, duration_ms,
            response_status, error, response_body)
), counted AS (
    UPDATE deliveries d SET
        attempt_count = d.attempt_count + 1,
        status = CASE WHEN {decides} THEN r.status ELSE d.status END,
        schedule_step = d.schedule_step + CASE WHEN {decides} THEN 1 ELSE 0 END,
        next_attempt_time = CASE WHEN {decides} THEN r.next_attempt_time
            ELSE d.next_attempt_time END,
        lease_until = CASE WHEN {decides} THEN NULL ELSE d.lease_until END
    FROM results r
    WHERE d.id = r.delivery_id
    RETURNING d.id, d.attempt_count, r.start_time, r.duration_ms, r.response_status, r.error,
        r.response_body
)
INSERT INTO delivery_attempts
    (delivery_id, number, start_time, duration_ms, response_status, error, response_body)
SELECT * FROM counted
""".replace("{decides}", _DECIDES)
)


async def record(connection: AsyncConnection, outcomes: Sequence[Outcome]) -> None:
    """Record attempts, at most one of each delivery, and what they mean for the deliveries."""
    # Rows are locked in the order of their ids, so that workers do not deadlock.
    outcomes = sorted(outcomes, key=lambda outcome: outcome.claim.delivery_id)
    attempts = [outcome.attempt for outcome in outcomes]
    await connection.execute(
        _RECORD,
        {
            "delivery_ids": [outcome.claim.delivery_id for outcome in outcomes],
            "leases": [outcome.claim.lease_until for outcome in outcomes],
            "statuses": [outcome.status for outcome in outcomes],
            "next_attempt_times": [outcome.next_attempt_time for outcome in outcomes],
            "start_times": [attempt.start_time for attempt in attempts],
            "durations_ms": [attempt.duration_ms for attempt in attempts],
            "response_statuses": [attempt.response_status for attempt in attempts],
            "errors": [attempt.error for attempt in attempts],
            "response_bodies": [attempt.response_body for attempt in attempts],
        },
    )
