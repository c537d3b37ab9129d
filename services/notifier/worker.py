"""Takes deliveries that are due, posts them, and decides what comes next.

Any number of workers share the queue. One endpoint, or one organization, never holds up the
others: each has its share of what is claimed and of what is in flight.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Protocol

import structlog
from prometheus_client import Counter as Metric
from prometheus_client import Gauge
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit import clock
from services.kit.database import Database
from services.kit.errors import UnavailableError
from services.kit.waiting import happens
from services.notifier import pace, queue_repository
from services.notifier.domain import Attempt
from services.notifier.limits import KeyedCount, Lanes, Rests, Shares
from services.notifier.queue_repository import Claim, Outcome, Target, Visited
from services.notifier.recorder import Recorder
from services.notifier.sealing import Sealer, SealError
from services.notifier.secret_store import open_target
from services.notifier.sender import Address, Webhook
from services.notifier.settings import NotifierSettings

log = structlog.get_logger()

CLAIMS_MAX = 512  # in one transaction
CLAIMED_MAX = 4_000  # by this process, waiting for their turn or in flight
# Under load a claim at most so often: each costs as much as sending a few webhooks.
GATHER_S = 0.01
ENDPOINTS_VISITED_MAX = 100  # in one transaction
# So many are claimed for each that an endpoint may have in flight, so that fast ones never wait;
# of one that answers slowly so many, and of one that nobody knows 1.
CLAIMED_PER_IN_FLIGHT = 16
CLAIMED_PER_IN_FLIGHT_SLOW = 2
ORGANIZATION_SHARE = 4  # one organization may take a 4th
# An attempt that has taken so long only waits: it leaves its slot to others, and so many may.
SLOW_AFTER_S = 0.5
SLOW_PER_IN_FLIGHT = 4

_ATTEMPTS = Metric("usageflow_webhook_attempts", "Attempts to deliver a webhook", ["error"])
_DELIVERIES = Metric("usageflow_webhook_deliveries", "Deliveries that are done", ["status"])
_attempts, _deliveries = cache(_ATTEMPTS.labels), cache(_DELIVERIES.labels)
_CLAIMED = Gauge("usageflow_webhook_claimed", "Deliveries this process has claimed")

# Jitter needs no secrecy, but this source needs no seed and no lock either.
_random = random.SystemRandom()


class Posts(Protocol):
    """Sends one webhook (sender.Sender)."""

    async def send(self, webhook: Webhook) -> Attempt:
        """One attempt; never raises."""


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be sent, and since when it is claimed (time.monotonic())."""

    claim: Claim
    address: Address
    claimed_s: float


@dataclass(slots=True)
class Line:
    """What is claimed of one endpoint and waits, and how many tasks send it."""

    organization_id: str
    waiting: deque[Due] = field(default_factory=deque)
    senders: int = 0


class Worker:
    """One process's worker. `due` is set when something new is due: it looks at once."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        sender: Posts,
        recorder: Recorder,
        settings: NotifierSettings,
        due: asyncio.Event,
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._sender = sender
        self._recorder = recorder
        self._settings = settings
        self._wake = due
        self._begun_s = 0.0  # the last claim
        self._after = ""  # the endpoint up to which this walk has come
        self._cut_short = False  # this walk left something that was due
        self._claimed: set[str] = set()  # from its claim until its outcome is recorded
        _CLAIMED.set_function(lambda: len(self._claimed))
        self._lines: dict[str, Line] = {}
        self._senders: set[asyncio.Task[None]] = set()
        self._settled = asyncio.Event()  # nothing is claimed
        self._settled.set()
        self._unsent: list[Claim] = []
        in_flight_max = settings.webhook_in_flight_max
        endpoint_max = min(settings.webhook_endpoint_in_flight_max, in_flight_max)
        self._senders_max = endpoint_max
        organization_max = max(in_flight_max // ORGANIZATION_SHARE, endpoint_max)
        self._rests = Rests()
        self._lanes = Lanes(
            quick=in_flight_max,
            quick_of_key=organization_max,
            slow=in_flight_max * SLOW_PER_IN_FLIGHT,
            slow_of_key=organization_max * SLOW_PER_IN_FLIGHT,
            slow_after_s=SLOW_AFTER_S,
        )
        self._endpoint_claims = Shares(
            first=endpoint_max,
            slow=endpoint_max * CLAIMED_PER_IN_FLIGHT_SLOW,
            most=endpoint_max * CLAIMED_PER_IN_FLIGHT,
        )
        self._organization_claims = KeyedCount(CLAIMED_MAX // ORGANIZATION_SHARE)

    async def run(self) -> None:
        """Work until cancelled; then finish what is in flight and give the rest back."""
        try:
            while True:
                self._wake.clear()
                try:
                    more = await self._claim_some()
                except UnavailableError as error:
                    log.warning("worker_waits", error=error.message)
                    more = False
                if not more:
                    await self._wait()
        finally:
            await self._drain()

    async def _wait(self) -> None:
        """Until something may be there to claim; let more come when the last claim was just now."""
        if not await happens(self._wake, self._settings.webhook_poll_s):
            return
        early_s = self._begun_s + GATHER_S - time.monotonic()
        if early_s > 0:
            await asyncio.sleep(early_s)

    async def _claim_some(self) -> bool:
        """Claim from the next endpoints of the walk. Returns whether to go on at once."""
        await self._give_back()
        claims_max = min(CLAIMS_MAX, CLAIMED_MAX - len(self._claimed))
        if claims_max <= 0:
            return False
        claimed_s = self._begun_s = time.monotonic()
        now = clock.now()
        async with self._database.transaction() as connection:
            visited = await queue_repository.endpoints_with_pending(
                connection, after=self._after, limit=ENDPOINTS_VISITED_MAX, now=now
            )
            wanted = [endpoint for endpoint in visited if self._wants(endpoint, claimed_s)]
            if not wanted:
                return self._go_on(visited, [], claims_max)
            limits = await self._limits(connection, wanted, now)
            claims = await queue_repository.claim(
                connection,
                limits,
                now=now,
                lease_until=now + self._settings.lease,
                claims_max=claims_max,
            )
            claimed = Counter(claim.endpoint_id for claim in claims)
            paced = {e.endpoint_id: claimed[e.endpoint_id] for e in wanted if e.rate_limit}
            if paced:
                await queue_repository.note_paced(connection, paced, now)
            targets = await queue_repository.targets(connection, list(claimed), now)
        opened = self._open(targets, {e.endpoint_id: e.organization_id for e in wanted})
        for claim in claims:
            if claim.endpoint_id in opened:
                self._start(Due(claim, opened[claim.endpoint_id], claimed_s))
        for endpoint_id, count in claimed.items():
            if endpoint_id in opened and count == limits[endpoint_id]:
                # More may be due. While this was claimed, attempts may have ended and the share
                # grown, so that what is taken now doesn't fill it: still its end is to wake.
                self._endpoint_claims.fill(endpoint_id)
        return self._go_on(visited, claims, claims_max)

    def _wants(self, endpoint: Visited, now_s: float) -> bool:
        """Whether to claim for an endpoint now."""
        return (
            not endpoint.resting
            and not self._rests.resting(endpoint.endpoint_id, now_s)
            and self._endpoint_claims.room(endpoint.endpoint_id) > 0
            and self._organization_claims.has_room(endpoint.organization_id)
        )

    async def _limits(
        self, connection: AsyncConnection, wanted: Sequence[Visited], now: datetime
    ) -> dict[str, int]:
        """How many deliveries to claim of each endpoint at most."""
        limits = {
            endpoint.endpoint_id: (
                1 if endpoint.probing else self._endpoint_claims.room(endpoint.endpoint_id)
            )
            for endpoint in wanted
        }
        limited = [endpoint.endpoint_id for endpoint in wanted if endpoint.rate_limit]
        if limited:
            allowed = await queue_repository.allowances(connection, limited, now)
            for endpoint_id in limited:
                limits[endpoint_id] = min(limits[endpoint_id], allowed.get(endpoint_id, 0))
        return limits

    async def _give_back(self) -> None:
        """Release what was claimed but not sent."""
        unsent, self._unsent = self._unsent, []
        if unsent:
            async with self._database.transaction() as connection:
                await queue_repository.release(connection, unsent)

    def _open(
        self, targets: Mapping[str, Target], organizations: Mapping[str, str]
    ) -> dict[str, Address]:
        """What can be opened of the targets; the claims of others are left until they run out."""
        opened = {}
        for endpoint_id, target in targets.items():
            try:
                headers, keys = open_target(self._sealer, endpoint_id, target)
            except SealError as error:
                log.error("endpoint_sealed", endpoint_id=endpoint_id, error=str(error))  # noqa: TRY400
                continue
            opened[endpoint_id] = Address(target.url, headers, keys, organizations[endpoint_id])
        return opened

    def _go_on(self, visited: list[Visited], claims: list[Claim], claims_max: int) -> bool:
        """Move the walk on. Returns whether something that is due may not have been seen."""
        if len(claims) == claims_max:
            self._cut_short = True
            self._after = max(claim.endpoint_id for claim in claims)
            return True
        if len(visited) == ENDPOINTS_VISITED_MAX:
            self._after = visited[-1].endpoint_id
            return True
        self._after = ""
        again, self._cut_short = self._cut_short, False
        return again

    def _start(self, due: Due) -> None:
        claim = due.claim
        if claim.delivery_id in self._claimed:
            return  # our own lease ran out while we are still at it
        self._claimed.add(claim.delivery_id)
        self._settled.clear()
        self._endpoint_claims.take(claim.endpoint_id)
        self._organization_claims.take(claim.organization_id)
        line = self._lines.setdefault(claim.endpoint_id, Line(claim.organization_id))
        line.waiting.append(due)
        if line.senders < self._senders_max:
            line.senders += 1
            sender = asyncio.create_task(self._send_line(claim.endpoint_id, line))
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)

    def _ended(self, claim: Claim) -> None:
        self._claimed.remove(claim.delivery_id)
        of_endpoint = self._endpoint_claims.give_back(claim.endpoint_id)
        of_organization = self._organization_claims.give_back(claim.organization_id)
        # An endpoint's room is of no use before its organization has some, which wakes, too.
        of_both = of_endpoint and self._organization_claims.has_room(claim.organization_id)
        if of_both or of_organization or len(self._claimed) == CLAIMED_MAX // 2:
            self._wake.set()
        if not self._claimed:
            self._settled.set()

    async def _send_line(self, endpoint_id: str, line: Line) -> None:
        """Send what waits in a line, one after the other; an endpoint has a few such tasks."""
        try:
            while line.waiting:
                proven = self._endpoint_claims.quick(endpoint_id)
                async with self._lanes.hold(line.organization_id, proven=proven):
                    if not line.waiting:  # taken by another, while this one waited for its lane
                        return
                    due = line.waiting.popleft()
                    attempt = await self._attempt(due)
                if attempt is not None:
                    self._attempted(due.claim, attempt)
        finally:
            line.senders -= 1
            if not line.senders and not line.waiting:
                del self._lines[endpoint_id]

    async def _attempt(self, due: Due) -> Attempt | None:
        """One attempt; None when there is to be none now."""
        claim, now_s = due.claim, time.monotonic()
        if self._rests.resting(claim.endpoint_id, now_s):
            self._unsent.append(claim)
            self._ended(claim)
            return None
        # A lease that may run out during the attempt is left to do so: nobody sends it twice.
        timeout_s = self._settings.webhook_timeout_s
        if now_s - due.claimed_s + timeout_s > self._settings.webhook_lease_s:
            self._ended(claim)
            return None
        attempt = await self._sender.send(Webhook(due.address, claim.event_id, claim.body))
        if attempt.response_status in pace.THROTTLING_STATUSES:
            # Before the slot goes to the next one; the database follows (health.py).
            self._rests.rest(claim.endpoint_id, pace.rest_s(attempt.retry_after_s))
        return attempt

    def _attempted(self, claim: Claim, attempt: Attempt) -> None:
        self._endpoint_claims.note(
            claim.endpoint_id,
            slow=attempt.duration_ms >= SLOW_AFTER_S * 1_000,
            failed=bool(attempt.error),
        )
        _attempts(attempt.error or "none").inc()
        outcome = self._outcome(claim, attempt)
        if outcome.status != "pending":
            _deliveries(outcome.status).inc()
        self._recorder.record(outcome, lambda: self._ended(claim))

    def _outcome(self, claim: Claim, attempt: Attempt) -> Outcome:
        if not attempt.error:
            return Outcome(claim, attempt, "succeeded", None)
        due_time = pace.next_attempt_time(
            self._settings.webhook_retry_delays_s,
            claim.schedule_step + 1,
            clock.now(),
            _random.uniform(-1, 1),
            attempt.retry_after_s,
        )
        if attempt.response_status == pace.GONE_STATUS:
            due_time = None
        log.info(
            "webhook_attempt_failed",
            delivery_id=claim.delivery_id,
            endpoint_id=claim.endpoint_id,
            error=attempt.error,
            response_status=attempt.response_status,
            gives_up=due_time is None,
        )
        return Outcome(claim, attempt, "pending" if due_time else "failed", due_time)

    async def _drain(self) -> None:
        """Finish what is in flight, for as long as an attempt may take; give the rest back."""
        for line in self._lines.values():
            for due in line.waiting:
                self._unsent.append(due.claim)
                self._ended(due.claim)
            line.waiting.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.webhook_timeout_s):
                await self._settled.wait()
        senders = list(self._senders)
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)
        await self._give_back()
