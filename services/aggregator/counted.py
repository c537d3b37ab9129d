"""Which batches are in figures: what makes the events behind a bill known for ever.

A watermark says what is in at least. What was accepted later may be in or not, and so may what was
being committed while the watermark was told; of all of these the inbox has the ids, in the snapshot
that the figures are read from.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator.tables import inbox
from services.kit.errors import UnavailableError

# Far longer than ingest takes to commit what it has given a time of acceptance.
COMMITTING_MAX = timedelta(minutes=2)
BATCHES_MAX = 20_000
RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class CountedBatches:
    """All that were accepted before `before`, and of the others these: 16 bytes each."""

    before: datetime
    batch_ids: bytes


async def find_counted_batches(connection: AsyncConnection, watermark: datetime) -> CountedBatches:
    """What the caller's snapshot, taken after `watermark` was told, has counted.

    UnavailableError while there are more than BATCHES_MAX ids to tell.
    """
    before = watermark - COMMITTING_MAX
    query = (
        select(inbox.c.message_id)
        .where(inbox.c.accept_time >= before)
        .order_by(inbox.c.accept_time)
        .limit(BATCHES_MAX + 1)
    )
    found = list((await connection.execute(query)).scalars())
    if len(found) > BATCHES_MAX:
        message = "Too much was counted since the watermark to tell what; try again"
        raise UnavailableError(message, retry_after_s=RETRY_AFTER_S)
    return CountedBatches(before, b"".join(UUID(batch_id).bytes for batch_id in found))
