"""Notes how endpoints are doing, and disables those that nothing reaches any more.

It has a transaction of its own, before the attempts are recorded: a crash between the two means
that the same attempts are made, and noted, once more, which does no harm.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import msgspec
import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit import clock
from services.kit.database import Database
from services.kit.errors import UnavailableError
from services.kit.ids import new_id
from services.notifier import audited, health_repository, pace, repository
from services.notifier.domain import Attempt, WebhookEvent, webhook_body
from services.notifier.filters import DISABLED_EVENT_TYPE
from services.notifier.health_repository import Disabled, Note
from services.notifier.queue_repository import Outcome

log = structlog.get_logger()

_DISABLED = Counter("usageflow_webhook_endpoints_disabled", "Endpoints disabled", ["reason"])


class Health:
    """Keeps the health of endpoints. `due` is called when it has made deliveries itself."""

    def __init__(self, database: Database, due: Callable[[], None]) -> None:
        self._database = database
        self._due = due

    async def note(self, outcomes: Sequence[Outcome]) -> None:
        """Note what these attempts say of their endpoints. A database that is away is no error."""
        notes = notes_of(outcomes)
        if not notes:
            return
        try:
            async with self._database.transaction() as connection:
                now = clock.now()
                gone = await health_repository.note(connection, notes, now)
                for each in gone:
                    await _tell(connection, each, now)
        except UnavailableError as error:
            log.warning("health_not_noted", endpoints=len(notes), error=error.message)
            return
        for each in gone:
            _DISABLED.labels(each.reason).inc()
            log.warning("endpoint_disabled", endpoint_id=each.endpoint_id, reason=each.reason)
        if gone:
            self._due()


def notes_of(outcomes: Iterable[Outcome]) -> list[Note]:
    """A note for each endpoint of which there is something to note."""
    attempts: dict[str, list[Attempt]] = {}
    for outcome in outcomes:
        if outcome.attempt.error or outcome.claim.ailing:
            attempts.setdefault(outcome.claim.endpoint_id, []).append(outcome.attempt)
    return [_note(endpoint_id, made) for endpoint_id, made in sorted(attempts.items())]


def _note(endpoint_id: str, attempts: Sequence[Attempt]) -> Note:
    failed = [attempt for attempt in attempts if attempt.error]
    throttled = [a for a in failed if a.response_status in pace.THROTTLING_STATUSES]
    return Note(
        endpoint_id=endpoint_id,
        succeeded=len(failed) < len(attempts),
        failure_time=max((attempt.start_time for attempt in failed), default=None),
        rest_s=max((pace.rest_s(attempt.retry_after_s) for attempt in throttled), default=None),
        gone=any(attempt.response_status == pace.GONE_STATUS for attempt in failed),
    )


async def _tell(connection: AsyncConnection, gone: Disabled, now: datetime) -> None:
    """End what is pending for the endpoint, and tell the organization's other endpoints."""
    await repository.end_pending(connection, gone.endpoint_id, "failed")
    data = {
        "endpointId": gone.endpoint_id,
        "reason": gone.reason.upper(),
        "failingSince": gone.failing_since.isoformat() if gone.failing_since else None,
    }
    await audited.note(connection, gone.tenant, "disabled", gone.endpoint_id, "", data)
    event = WebhookEvent(
        id=new_id("whevt"),
        tenant=gone.tenant,
        type=DISABLED_EVENT_TYPE,
        create_time=now,
        body=webhook_body(DISABLED_EVENT_TYPE, now, msgspec.json.encode(data).decode()),
    )
    subscribed = await repository.endpoints_of(connection, [gone.tenant])
    pairs = [(event, each) for each in subscribed[gone.tenant] if each.takes(event.type)]
    await repository.insert_events(connection, [event])
    await repository.insert_deliveries(connection, pairs, now, now)
