"""Takes deliveries that are due, posts them, and decides what comes next.

Any number of workers share the queue. One endpoint, or one organization, never holds up the
others: each has its share of what is claimed and of what is in flight.
"""

import asyncio
import random
import time
from typing import Protocol

import structlog
from prometheus_client import Counter, Gauge

from services.kit import clock
from services.kit.database import Database
from services.kit.errors import UnavailableError
from services.notifier import queue_repository
from services.notifier.domain import Attempt, next_attempt_time
from services.notifier.limits import KeyedCount, KeyedSlots
from services.notifier.queue_repository import Claim, Outcome
from services.notifier.recorder import Recorder
from services.notifier.sender import Webhook
from services.notifier.settings import NotifierSettings

log = structlog.get_logger()

CLAIMS_MAX = 256  # in one transaction
CLAIMED_MAX = 2_000  # by this process, waiting for their turn or in flight
ENDPOINTS_VISITED_MAX = 100  # in one transaction
# So many are claimed for each that an endpoint may have in flight, so that fast ones never wait.
CLAIMED_PER_IN_FLIGHT = 16
ORGANIZATION_SHARE = 4  # one organization may take a 4th

_ATTEMPTS = Counter("usageflow_webhook_attempts", "Attempts to deliver a webhook", ["error"])
_CLAIMED = Gauge("usageflow_webhook_claimed", "Deliveries this process has claimed")

# Jitter needs no secrecy, but this source needs no seed and no lock either.
_random = random.SystemRandom()


class Posts(Protocol):
    """Sends one webhook (sender.Sender)."""

    async def send(self, webhook: Webhook) -> Attempt:
        """One attempt; never raises."""


class Worker:
    """One process's worker."""

    def __init__(
        self, database: Database, sender: Posts, recorder: Recorder, settings: NotifierSettings
    ) -> None:
        self._database = database
        self._sender = sender
        self._recorder = recorder
        self._settings = settings
        self._wake = asyncio.Event()
        self._stopping = False
        self._after = ""  # the endpoint up to which this walk has come
        self._cut_short = False  # this walk left something that was due
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._unsent: list[Claim] = []
        in_flight_max = settings.webhook_in_flight_max
        endpoint_max = min(settings.webhook_endpoint_in_flight_max, in_flight_max)
        organization_max = max(in_flight_max // ORGANIZATION_SHARE, endpoint_max)
        self._slots = asyncio.Semaphore(in_flight_max)
        self._endpoint_slots = KeyedSlots(endpoint_max)
        self._organization_slots = KeyedSlots(organization_max)
        self._per_endpoint_max = endpoint_max * CLAIMED_PER_IN_FLIGHT
        self._endpoint_claims = KeyedCount(self._per_endpoint_max)
        self._organization_claims = KeyedCount(CLAIMED_MAX // ORGANIZATION_SHARE)

    def wake(self) -> None:
        """Something new is due: look at once."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled; then finish what is in flight and give the rest back."""
        self._stopping = False
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
        try:
            await asyncio.wait_for(self._wake.wait(), self._settings.webhook_poll_s)
        except TimeoutError:
            return

    async def _claim_some(self) -> bool:
        """Claim from the next endpoints of the walk. Returns whether to go on at once."""
        claims_max = min(CLAIMS_MAX, CLAIMED_MAX - len(self._tasks))
        if claims_max <= 0:
            return False
        claimed_s = time.monotonic()
        async with self._database.transaction() as connection:
            visited = await queue_repository.endpoints_with_pending(
                connection, after=self._after, limit=ENDPOINTS_VISITED_MAX
            )
            wanted = [
                endpoint_id
                for endpoint_id, organization_id in visited
                if self._endpoint_claims.has_room(endpoint_id)
                and self._organization_claims.has_room(organization_id)
            ]
            now = clock.now()
            claims = await queue_repository.claim(
                connection,
                wanted,
                now=now,
                lease_until=now + self._settings.lease,
                per_endpoint_max=self._per_endpoint_max,
                claims_max=claims_max,
            )
        for claim in claims:
            self._start(claim, claimed_s)
        return self._go_on(visited, claims, claims_max)

    def _go_on(self, visited: list[tuple[str, str]], claims: list[Claim], claims_max: int) -> bool:
        """Move the walk on. Returns whether something that is due may not have been seen."""
        if len(claims) == claims_max:
            self._cut_short = True
            self._after = max(claim.endpoint_id for claim in claims)
            return True
        if len(visited) == ENDPOINTS_VISITED_MAX:
            self._after = visited[-1][0]
            return True
        self._after = ""
        again, self._cut_short = self._cut_short, False
        return again

    def _start(self, claim: Claim, claimed_s: float) -> None:
        if claim.delivery_id in self._tasks:
            return  # our own lease ran out while we are still at it
        self._endpoint_claims.take(claim.endpoint_id)
        self._organization_claims.take(claim.organization_id)
        task = asyncio.create_task(self._deliver(claim, claimed_s))
        self._tasks[claim.delivery_id] = task
        task.add_done_callback(lambda _task: self._ended(claim))
        _CLAIMED.set(len(self._tasks))

    def _ended(self, claim: Claim) -> None:
        del self._tasks[claim.delivery_id]
        _CLAIMED.set(len(self._tasks))
        room = (
            self._endpoint_claims.give_back(claim.endpoint_id),
            self._organization_claims.give_back(claim.organization_id),
            len(self._tasks) == CLAIMED_MAX // 2,
        )
        if any(room):
            self._wake.set()

    async def _deliver(self, claim: Claim, claimed_s: float) -> None:
        async with (
            self._endpoint_slots.hold(claim.endpoint_id),
            self._organization_slots.hold(claim.organization_id),
            self._slots,
        ):
            if self._stopping:
                self._unsent.append(claim)
                return
            # A lease that may run out during the attempt is left to do so: nobody sends it twice.
            held_s = time.monotonic() - claimed_s
            if held_s + self._settings.webhook_timeout_s > self._settings.webhook_lease_s:
                return
            attempt = await self._sender.send(
                Webhook(claim.url, claim.event_id, claim.body, claim.keys)
            )
        _ATTEMPTS.labels(attempt.error or "none").inc()
        await self._recorder.record(self._outcome(claim, attempt))

    def _outcome(self, claim: Claim, attempt: Attempt) -> Outcome:
        if not attempt.error:
            return Outcome(claim, attempt, "succeeded", None)
        due_time = next_attempt_time(
            self._settings.webhook_retry_delays_s,
            claim.schedule_step + 1,
            clock.now(),
            _random.uniform(-1, 1),
        )
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
        self._stopping = True
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=self._settings.webhook_timeout_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        unsent, self._unsent = self._unsent, []
        if unsent:
            async with self._database.transaction() as connection:
                await queue_repository.release(connection, unsent)
