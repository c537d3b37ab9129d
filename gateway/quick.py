"""POST /api/track without ASGI, for the usual request: a known key and a plain event.

ASGI costs a task, a scope and a dozen calls a request, twice what the event itself takes
(measured: 38 us with them, 15 us without). So a request that needs nothing unusual is answered
from the connection's own callbacks (protocol.py). Whatever is unusual is left to track.py: every
refusal of a request is made there, and only there.
"""

from typing import Final, Protocol

from gateway.access import KEY_HEADER
from gateway.coalescer import Coalescer
from gateway.errors import HttpError
from gateway.event import read_plain_tracked
from gateway.forming import Asker
from gateway.rates import Rates
from gateway.track import counted, now_micros, refused, unquoted
from gateway.wire import Header, RequestIds
from services.kit.auth import KeyCache

PATH: Final = b"/api/track"
BODY_BYTES_MAX: Final = 16 * 1024


class Exchange(Asker, Protocol):
    """One request, which answers itself once the receipt is there."""

    request_id: str
    # Lines of the answer's head that tell the caller's limits.
    limit_lines: bytes

    def refused(self, error: HttpError) -> None:
        """Answer it without having asked ingest."""


class NoQuickTrack:
    """Leaves every event to track.py."""

    def take(self, header_list: list[Header], body: bytes, exchange: Exchange) -> bool:
        """False."""
        return False


class QuickTrack:
    """Takes events that need nothing unusual."""

    def __init__(
        self, keys: KeyCache, rates: Rates, coalescer: Coalescer, request_ids: RequestIds
    ) -> None:
        self._keys = keys
        self._rates = rates
        self._coalescer = coalescer
        self._request_ids = request_ids

    def take(self, header_list: list[Header], body: bytes, exchange: Exchange) -> bool:
        """Whether the event is on its way to ingest, and `exchange` will be answered.

        False: nothing was done, and only track.py can tell what is to be done.
        """
        refusal = self._coalescer.refusal(1, len(body))
        if refusal is not None:
            # Whatever else may be wrong with the request: refusing has to cost least of all.
            exchange.request_id = self._request_ids.take(None)
            exchange.refused(refused(refusal.retry_after_s))
            return True
        headers = dict(header_list)
        key = headers.get(b"idempotency-key", b"")
        if (
            len(headers) != len(header_list)
            or headers.get(b"content-type") != b"application/json"
            or (not key and b"idempotency-key" in headers)
            or b"content-encoding" in headers
        ):
            return False
        principal = self._keys.cached(headers.get(KEY_HEADER, b"").decode("latin-1"))
        if principal is None or principal.networks or principal.test_clocks:
            return False
        if "track" not in principal.scopes:
            return False
        event = read_plain_tracked(
            body, unquoted(key) if key else "", now_micros(), principal.event_past_micros
        )
        if event is None:
            return False
        exchange.request_id = self._request_ids.take(headers.get(b"x-request-id"))
        caller = self._rates.caller(principal)
        beyond = caller.take_one()
        exchange.limit_lines = caller.lines_of_event()
        if beyond is not None:
            exchange.refused(counted(beyond))
            return True
        self._coalescer.submit(principal, event, len(body), exchange)
        return True
