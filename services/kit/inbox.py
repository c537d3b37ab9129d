"""A message is applied once: its id is recorded in the transaction that applies it."""

from collections.abc import Sequence

from sqlalchemy import (
    Column,
    DateTime,
    FromClause,
    MetaData,
    Table,
    Text,
    any_,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection
from usageflow.events.v1 import events_pb2

from services.kit.database import Database
from services.kit.messaging import Messaging


def inbox_table(metadata: MetaData) -> Table:
    """The ids of the messages that were applied."""
    return Table(
        "inbox",
        metadata,
        Column("message_id", Text, primary_key=True),
        Column("receive_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    )


async def take_new(
    connection: AsyncConnection, table: Table, message_ids: Sequence[str]
) -> set[str]:
    """Record the ids in the caller's transaction; returns those that were not there before.

    Another transaction that is just recording the same id is waited for.
    """
    # In one order everywhere: two replicas with the same messages must not deadlock.
    ids = sorted(set(message_ids))
    rows = select(func.unnest(literal(ids, ARRAY(Text))))
    statement = (
        insert(table)
        .from_select(["message_id"], rows)
        .on_conflict_do_nothing()
        .returning(table.c.message_id)
    )
    return set((await connection.execute(statement)).scalars())


async def serve_inbox(
    database: Database, table: FromClause, messaging: Messaging, consumer: str
) -> None:
    """Answer senders that ask which of their messages this consumer lacks.

    `table` has the ids of those it has applied in the column `message_id`.
    """

    async def find_missing(request_bytes: bytes) -> bytes:
        request = events_pb2.FindMissingMessagesRequest.FromString(request_bytes)
        asked = list(request.message_ids)
        query = select(table.c.message_id).where(
            table.c.message_id == any_(literal(asked, ARRAY(Text)))
        )
        async with database.transaction() as connection:
            known = set((await connection.execute(query)).scalars())
        missing = [message_id for message_id in asked if message_id not in known]
        response = events_pb2.FindMissingMessagesResponse(missing_message_ids=missing)
        return response.SerializeToString()

    await messaging.on_request(f"usageflow.inbox.{consumer}", consumer, find_missing)
