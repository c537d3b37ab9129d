"""Voids: acknowledged events are taken out of what is billed, over and over, some of them twice."""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence

import grpc
from usageflow.ingest.v1 import ingest_pb2 as pb
from usageflow.ingest.v1 import ingest_pb2_grpc

from services.kit.grpc_client import api_key_metadata
from tests.chaos.journal import Journal
from tests.chaos.usage import Tenant, VoidAnswer
from tests.chaos.ways import CONNECTION_CUT, REQUEST_TIMEOUT_S, TRANSIENT_GRPC, Refusals

PAUSE_S = 1.0
IDS_MAX = 40
# Just acknowledged, so that their batches may not have been applied yet.
NEW_MAX = 50
OLD_MAX = 5_000
VOIDED_MAX = 500
REASON = "chaos"


class Voidable:
    """Ids of acknowledged events by tenant: the newest, some of any age, some void already."""

    def __init__(self) -> None:
        self._new: list[str] = []
        self._old: list[str] = []
        self._voided: list[str] = []

    def add(self, event_id: str, rng: random.Random) -> None:
        """An event was acknowledged."""
        _put(self._new, event_id, NEW_MAX, rng)
        _put(self._old, event_id, OLD_MAX, rng)

    def voided(self, event_ids: Sequence[str], rng: random.Random) -> None:
        """These are void."""
        for event_id in event_ids:
            _put(self._voided, event_id, VOIDED_MAX, rng)

    def some(self, rng: random.Random) -> list[str]:
        """What to void now; an id may be there twice."""
        known = [kind for kind in (self._new, self._old, self._voided) if kind]
        if not known:
            return []
        return [rng.choice(rng.choice(known)) for _ in range(rng.randint(1, IDS_MAX))]


def _put(ids: list[str], event_id: str, size_max: int, rng: random.Random) -> None:
    if len(ids) < size_max:
        ids.append(event_id)
    else:
        ids[rng.randrange(size_max)] = event_id


class Voider:
    """A sender of voids."""

    def __init__(
        self,
        seed: str,
        channel: grpc.aio.Channel,
        tenants: Mapping[str, Tenant],
        journal: Journal,
        refusals: Refusals,
        *,
        active: bool,
    ) -> None:
        """One that is not `active` voids nothing."""
        self._active = active
        self._rng = random.Random(seed)
        self._stub = ingest_pb2_grpc.IngestServiceStub(channel)
        self._tenants = tenants
        self._journal = journal
        self._refusals = refusals
        self.answers: Counter[VoidAnswer] = Counter()
        self._voidable = {name: Voidable() for name in tenants}

    def acknowledged(self, tenant: str, event_id: str) -> None:
        """An event that may be voided."""
        self._voidable[tenant].add(event_id, self._rng)

    async def run(self, ending: asyncio.Event) -> None:
        """Void until told to end; what then got no answer is sent again until it has one."""
        unanswered: tuple[str, list[str]] | None = None
        while self._active and (unanswered or not ending.is_set()):
            name, ids = unanswered or self._next()
            unanswered = (name, ids) if ids and not await self._void(name, ids) else None
            await asyncio.sleep(self._rng.expovariate(1 / PAUSE_S))

    def _next(self) -> tuple[str, list[str]]:
        name = self._rng.choice(list(self._tenants))
        return name, self._voidable[name].some(self._rng)

    async def _void(self, name: str, ids: list[str]) -> bool:
        """Send once; whether there was an answer."""
        attempts = self._journal.void_attempts(name, ids)
        try:
            response = await self._stub.VoidEvents(
                pb.VoidEventsRequest(event_ids=ids, reason=REASON),
                timeout=REQUEST_TIMEOUT_S,
                metadata=api_key_metadata(self._tenants[name].api_key),
            )
        except grpc.aio.AioRpcError as error:
            if error.code() not in TRANSIENT_GRPC and error.details() != CONNECTION_CUT:
                self._refusals.note(f"VoidEvents: {error.code().name} {error.details()}")
            return False
        answers = [
            VoidAnswer(pb.VoidStatus.Name(receipt.status).removeprefix("VOID_STATUS_"))
            for receipt in response.receipts
        ]
        self._journal.voids_answered(attempts, answers)
        self.answers.update(answers)
        self._voidable[name].voided(ids, self._rng)
        return True
