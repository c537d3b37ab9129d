"""A call to ingest while it forms: whose events are in it, who waits for which receipts."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple, Protocol, TypeAlias

import structlog
from usageflow.ingest.v1.ingest_pb2 import (
    EventInput,
    EventReceipt,
    RecordTenantEventsRequest,
    RecordTenantEventsResponse,
    TenantEventInputs,
)

from services.kit.errors import DomainError, UnavailableError

log = structlog.get_logger()

# Organization, mode, and its event_past_days, strict_metrics and test clocks: two values of one can
# meet while it is changed.
Tenant: TypeAlias = tuple[str, int, int, bool, tuple[tuple[str, int], ...]]
# The tag of RecordTenantEventsRequest.tenants: field number and wire type 2, a length follows.
_TENANTS_TAG: Final = bytes((RecordTenantEventsRequest.TENANTS_FIELD_NUMBER << 3 | 2,))


class Asker(Protocol):
    """Waits for the receipt of one event."""

    @property
    def gone(self) -> bool:
        """Whether nobody would hear the answer."""

    def answered(self, outcome: EventReceipt | DomainError, usage_token: str) -> None:
        """Called once, with the receipt and the token, or an error and ""."""


class Part(NamedTuple):
    """Some events of one caller, which stay together: `encoded` is a TenantEventInputs that has
    nothing but events. Encoded messages may be joined: fields that repeat are appended.
    """

    events: int
    encoded: bytes


class Recorded(NamedTuple):
    """Receipts in the order of the events, and the token that stands for them."""

    receipts: Sequence[EventReceipt]
    usage_token: str


PartOutcome: TypeAlias = "asyncio.Future[Recorded | DomainError]"


class _Share:
    """One tenant's events: single ones first, then parts."""

    __slots__ = ("askers", "parts", "singles")

    def __init__(self) -> None:
        self.singles: list[EventInput] = []
        self.askers: list[Asker] = []
        self.parts: list[tuple[Part, PartOutcome]] = []

    def drop_gone(self) -> int:
        """Leave out single events whose askers are gone; returns how many."""
        here = [number for number, asker in enumerate(self.askers) if not asker.gone]
        dropped = len(self.askers) - len(here)
        if dropped:
            self.singles = [self.singles[number] for number in here]
            self.askers = [self.askers[number] for number in here]
        return dropped

    def encoded(self, tenant: Tenant) -> bytes:
        organization_id, mode, event_past_days, strict_metrics, clocks = tenant
        singles = TenantEventInputs(
            organization_id=organization_id,
            mode=mode,  # type: ignore[arg-type]
            events=self.singles,
            event_past_days=event_past_days,
            strict_metrics=strict_metrics,
        )
        for customer_id, time_micros in clocks:
            clock = singles.test_clocks.add(customer_id=customer_id)
            clock.time.FromMicroseconds(time_micros)
        return b"".join(
            (singles.SerializeToString(), *(part.encoded for part, _outcome in self.parts))
        )


class FormingCall:
    """Events that go to ingest together. `since_s` is when the first came, on the loop's clock."""

    __slots__ = ("_shares", "bytes", "events", "since_s")

    def __init__(self, since_s: float) -> None:
        self._shares: dict[Tenant, _Share] = {}
        self.events = 0
        self.bytes = 0
        self.since_s = since_s

    def add(self, tenant: Tenant, event: EventInput, size: int, asker: Asker) -> None:
        """Add one event."""
        share = self._share(tenant)
        share.singles.append(event)
        share.askers.append(asker)
        self.events += 1
        self.bytes += size

    def add_part(self, tenant: Tenant, part: Part, outcome: PartOutcome) -> None:
        """Add events that stay together; `outcome` gets their receipts."""
        self._share(tenant).parts.append((part, outcome))
        self.events += part.events
        self.bytes += len(part.encoded)

    def _share(self, tenant: Tenant) -> _Share:
        share = self._shares.get(tenant)
        if share is None:
            share = self._shares[tenant] = _Share()
        return share

    def drop_gone(self) -> int:
        """Leave out single events that nobody waits for any more; returns how many."""
        dropped = sum(share.drop_gone() for share in self._shares.values())
        self.events -= dropped
        return dropped

    def request(self) -> bytes:
        """The RecordTenantEventsRequest, encoded: parts are passed on as they are."""
        return b"".join(
            piece
            for tenant, share in self._shares.items()
            for piece in _delimited(_TENANTS_TAG, share.encoded(tenant))
        )

    def answer(self, response: RecordTenantEventsResponse) -> None:
        """Give everybody their receipts, which come in the order of the request."""
        receipts, token = iter(response.receipts), response.usage_token
        for share in self._shares.values():
            for asker in share.askers:
                _tell(asker, next(receipts), token)
            for part, outcome in share.parts:
                own = list(islice(receipts, part.events))
                if not outcome.done():
                    outcome.set_result(Recorded(own, token))

    def fail(self, cause: DomainError) -> None:
        """Give everybody an error of their own: nobody knows what became of the events."""
        for share in self._shares.values():
            for asker in share.askers:
                _tell(asker, _not_stored(cause), "")
            for _part, outcome in share.parts:
                if not outcome.done():
                    outcome.set_result(_not_stored(cause))


def _tell(asker: Asker, outcome: EventReceipt | DomainError, usage_token: str) -> None:
    try:
        asker.answered(outcome, usage_token)
    except Exception:
        log.exception("answer_failed")


def _not_stored(cause: DomainError) -> UnavailableError:
    return UnavailableError(
        "The event could not be stored", retry_after_s=cause.retry_after_s or 1.0
    )


def _delimited(tag: bytes, payload: bytes) -> Iterator[bytes]:
    """A field of wire type 2: tag, length as a base 128 varint, payload."""
    yield tag
    length = len(payload)
    digits = bytearray()
    while length > 0x7F:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    digits.append(length)
    yield bytes(digits)
    yield payload
