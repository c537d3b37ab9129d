"""Posts one webhook to a receiver that nobody trusts.

The URL is a customer's, the request comes from inside our network and the answer may be anything.
So: only https to public addresses (unless the operator allows more), every address that a name
resolves to is checked and the connection goes to one of those checked; no redirects, no proxy from
the environment, no cookies, no decompression; one deadline for all of it, the answer's body
included, of which little is read and less is kept.
"""

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import certifi
import structlog

from services.kit import clock
from services.notifier.domain import Attempt
from services.notifier.http_client import Answer, Client, Target, head_of, target_of
from services.notifier.pace import retry_after_s
from services.notifier.resolving import (
    CheckedResolver,
    LookUp,
    RefusedAddressError,
    UnknownNameError,
    system_look_up,
)
from services.notifier.signing import SigningKey, signature_header

log = structlog.get_logger()

USER_AGENT = "UsageFlow-Webhooks/1"
KEPT_BYTES_MAX = 16 * 1024


@dataclass(frozen=True)
class Address:
    """Where an endpoint's webhooks go, the headers of its own, the keys that sign; whose it is."""

    url: str
    headers: Mapping[str, str]
    keys: Sequence[SigningKey]
    organization_id: str = ""

    @cached_property
    def target(self) -> Target:
        """Where the URL leads; ValueError when nowhere."""
        return target_of(self.url)

    @cached_property
    def head(self) -> bytes:
        """What is the same in the head of each of its webhooks."""
        headers = {"accept": "*/*"} | {name.lower(): text for name, text in self.headers.items()}
        ours = {"content-type": "application/json", "user-agent": USER_AGENT}
        return head_of(self.target, headers | ours)


@dataclass(frozen=True, slots=True)
class Webhook:
    """What is to be sent, and where to."""

    address: Address
    webhook_id: str
    body: bytes


class Sender:
    """Posts webhooks. It never raises: whatever happens is an Attempt."""

    def __init__(
        self,
        *,
        allow_private: bool,
        timeout_s: float,
        look_up: LookUp = system_look_up,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._timeout_s = timeout_s
        resolver = CheckedResolver(allow_private=allow_private, look_up=look_up)
        self._client = Client(resolver, tls or _tls(), allow_private=allow_private)

    async def close(self) -> None:
        """Close every connection."""
        self._client.close()

    async def send(self, webhook: Webhook) -> Attempt:
        """One attempt, over in `timeout_s` at most."""
        start_time, started_s = clock.now(), time.monotonic()
        answer = Answer()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._post(webhook, answer)
            error = "" if 200 <= answer.status < 300 else "http_status"
        except Exception as failure:
            error = _error_class(failure)
        return Attempt(
            start_time=start_time,
            duration_ms=int((time.monotonic() - started_s) * 1000),
            response_status=answer.status,
            error=error,
            response_body=bytes(answer.body[:KEPT_BYTES_MAX]),
            retry_after_s=(
                retry_after_s(answer.retry_after, _receivers_time()) if answer.retry_after else None
            ),
        )

    async def _post(self, webhook: Webhook, answer: Answer) -> None:
        address = webhook.address
        if not address.target.tls and not self._allow_private:
            raise RefusedAddressError(1, "webhooks go over https only")
        timestamp_s = int(_receivers_time().timestamp())
        signature = signature_header(address.keys, webhook.webhook_id, timestamp_s, webhook.body)
        own = (
            f"webhook-id: {webhook.webhook_id}\r\nwebhook-timestamp: {timestamp_s}\r\n"
            f"webhook-signature: {signature}\r\ncontent-length: {len(webhook.body)}\r\n\r\n"
        )
        request = b"".join((address.head, own.encode(), webhook.body))
        await self._client.post(
            address.target, request, answer, organization_id=address.organization_id
        )


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _receivers_time() -> datetime:
    """The time in the world outside: a moved clock is ours alone, receivers compare with theirs."""
    return clock.now() - clock.offset()


def _error_class(failure: Exception) -> str:
    if isinstance(failure, TimeoutError):
        return "timeout"
    if isinstance(failure, RefusedAddressError):
        return "refused_address"
    if isinstance(failure, ssl.SSLError):  # a wrong certificate is a ValueError, too
        return "tls"
    if isinstance(failure, UnknownNameError | ValueError):
        return "dns"
    if not isinstance(failure, OSError):
        log.error("webhook_attempt_failed", exc_info=failure)
    return "connection"
