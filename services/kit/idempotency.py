"""Idempotency keys of RPCs that change something: the same call again gets the same answer.

A call may carry `idempotency-key` in its metadata. All that it writes, and its answer under the
key, are then one transaction: either both are there or neither, however often the call is sent,
to whichever replica, and whatever is killed meanwhile. What is refused uses no key up. Answers are
kept for KEPT at least; they are sealed, since some hold a secret that is shown only once: only who
calls with the same credential and key can open them.
"""

import asyncio
import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message
from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    delete,
    insert,
    select,
    text,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import ConflictError, FieldProblem, InvalidArgumentError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_CHARS_MAX: Final = 255
KEPT: Final = timedelta(hours=48)
# Old ones go with each new one, so that their number stays that of the last 48 h.
PRUNED_MAX: Final = 10
# A gRPC message has at most 16 MiB.
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024 + 1024
_NONCE_BYTES: Final = 12
_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 1))")


def idempotency_table(metadata: MetaData) -> Table:
    """The table in which a service keeps its answers."""
    return Table(
        "idempotency_keys",
        metadata,
        Column("organization_id", Text, nullable=False),
        Column("mode", Text, nullable=False),
        Column("key_hash", LargeBinary, nullable=False),
        Column("request_hash", LargeBinary, nullable=False),
        Column("actor_id", Text, nullable=False),
        Column("answer", LargeBinary, nullable=False),
        Column("create_time", DateTime(timezone=True), nullable=False),
        PrimaryKeyConstraint("organization_id", "mode", "key_hash", name="pk_idempotency_keys"),
        CheckConstraint("mode IN ('live', 'test')", name="mode"),
        CheckConstraint(
            "octet_length(key_hash) = 32 AND octet_length(request_hash) = 32", name="hashes"
        ),
        CheckConstraint(f"octet_length(answer) BETWEEN 28 AND {ANSWER_BYTES_MAX}", name="answer"),
        Index("ix_idempotency_keys_create_time", "create_time"),
    )


TABLE: Final = idempotency_table(MetaData())


@dataclass(frozen=True, slots=True)
class KeyedCall:
    """A call with a key. `credential` is what its caller showed: an API key or a session."""

    tenant: TenantKey
    actor_id: str
    credential: str
    key: str
    method: str
    request: Message

    @property
    def key_hash(self) -> bytes:
        """What stands for the key in the table: a key may tell something of its own."""
        return hashlib.sha256(self.key.encode()).digest()

    @property
    def request_hash(self) -> bytes:
        """What the same call has in common with itself."""
        digest = hashlib.sha256(self.method.encode() + b"\0")
        digest.update(self.request.SerializeToString(deterministic=True))
        return digest.digest()

    def sealer(self) -> "AESGCM":
        """Seals the answer under what only the caller has."""
        # Some megabytes, which a service that sees no key does without.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        secret = hmac.digest(self.credential.encode(), b"answer " + self.key.encode(), "sha256")
        return AESGCM(secret)


class Answers:
    """The answers of one service, in its own database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Of those who wait for the same key one a process holds a connection.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def answer(
        self, call: KeyedCall, run: Callable[[], Awaitable[Message]]
    ) -> tuple[Message, bool]:
        """The answer, and whether it is that of an earlier call; then `run` was not called.

        ConflictError: the key was used for something else. Calls with the same key wait for each
        other.
        """
        check_key(call.key)
        place = "/".join((*call.tenant, call.key))
        turn = self._turns.setdefault(place, asyncio.Lock())
        async with turn, self._database.together() as connection:
            await connection.execute(_LOCK, {"key": place})
            earlier = await _find(connection, call)
            if earlier is not None:
                return earlier, True
            answer = await run()
            await _keep(connection, call, answer)
        return answer, False


def check_key(key: str) -> None:
    """InvalidArgumentError unless it is one."""
    if not (0 < len(key) <= KEY_CHARS_MAX and key.isascii() and key.isprintable()):
        message = f"must be 1-{KEY_CHARS_MAX} printable ASCII characters"
        raise InvalidArgumentError([FieldProblem("Idempotency-Key", message)])


async def _find(connection: AsyncConnection, call: KeyedCall) -> Message | None:
    query = select(TABLE).where(
        TABLE.c.organization_id == call.tenant.organization_id,
        TABLE.c.mode == call.tenant.mode,
        TABLE.c.key_hash == call.key_hash,
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    if row.request_hash != call.request_hash or row.actor_id != call.actor_id:
        raise ConflictError(
            "This Idempotency-Key was used for another request; nothing was done",
            reason="idempotency_conflict",
        )
    sealed = bytes(row.answer)
    opened = call.sealer().decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], call.key_hash)
    answer: Message = _answer_class(call.method).FromString(opened)
    return answer


async def _keep(connection: AsyncConnection, call: KeyedCall, answer: Message) -> None:
    now, nonce = clock.now(), os.urandom(_NONCE_BYTES)
    sealed = call.sealer().encrypt(nonce, answer.SerializeToString(), call.key_hash)
    await connection.execute(
        insert(TABLE).values(
            organization_id=call.tenant.organization_id,
            mode=call.tenant.mode,
            key_hash=call.key_hash,
            request_hash=call.request_hash,
            actor_id=call.actor_id,
            answer=nonce + sealed,
            create_time=now,
        )
    )
    identity = tuple_(TABLE.c.organization_id, TABLE.c.mode, TABLE.c.key_hash)
    old = (
        select(TABLE.c.organization_id, TABLE.c.mode, TABLE.c.key_hash)
        .where(TABLE.c.create_time < now - KEPT)
        .order_by(TABLE.c.create_time)
        .limit(PRUNED_MAX)
        .with_for_update(skip_locked=True)
    )
    await connection.execute(delete(TABLE).where(identity.in_(old)))


def _answer_class(method: str) -> Any:
    """The class of an RPC's answer; `method` is "/package.Service/Rpc"."""
    name = method.removeprefix("/").replace("/", ".")
    found = descriptor_pool.Default().FindMethodByName(name)
    return message_factory.GetMessageClass(found.output_type)
