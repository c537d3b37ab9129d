"""Posts one webhook to a receiver that nobody trusts.

The URL is a customer's, the request comes from inside our network and the answer may be anything.
So: only https to public addresses (unless the operator allows more), every address that a name
resolves to is checked and the connection goes to one of those checked; no redirects, no proxy from
the environment, no cookies, no decompression; one deadline for all of it, the answer's body
included, of which little is read and less is kept.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

import aiohttp
import certifi
import structlog
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_exceptions import ClientConnectorDNSError, ClientSSLError

from services.kit import clock
from services.notifier.addresses import is_public, parse_address
from services.notifier.domain import Attempt
from services.notifier.pace import retry_after_s
from services.notifier.signing import SigningKey, signature_header

log = structlog.get_logger()

USER_AGENT = "UsageFlow-Webhooks/1"
READ_BYTES_MAX = 64 * 1024
KEPT_BYTES_MAX = 16 * 1024
LOOK_UPS_RUNNING_MAX = 32
LOOK_UP_REMEMBERED_S = 10
# Shorter than the 5 s after which common servers close, so that we rarely meet a closing one.
IDLE_CONNECTION_S = 4.0

AddressInfo = tuple[
    int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
]
LookUp = Callable[[str, int], Sequence[AddressInfo]]


class RefusedAddressError(OSError):
    """The address is not one that webhooks may go to."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where an endpoint's webhooks go, the headers of its own, and the keys that sign."""

    url: str
    headers: Mapping[str, str]
    keys: Sequence[SigningKey]


@dataclass(frozen=True, slots=True)
class Webhook:
    """What is to be sent, and where to."""

    address: Address
    webhook_id: str
    body: bytes


class CheckedResolver(AbstractResolver):
    """Resolves a name once, in threads of its own, and refuses it when any address is denied.

    One denied address among public ones is what an attack looks like, not a working receiver.
    """

    def __init__(self, *, allow_private: bool, look_up: LookUp) -> None:
        self._allow_private = allow_private
        self._look_up = look_up
        # Names that hang must not keep other work of the process from its threads.
        self._threads = ThreadPoolExecutor(LOOK_UPS_RUNNING_MAX, thread_name_prefix="dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of `host`. RefusedAddressError, or OSError when it has none."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, self._look_up, host, port)
        results = []
        for kind, _, protocol, _, where in found:
            address = str(where[0])
            check_address(address, allow_private=self._allow_private)
            results.append(
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=port,
                    family=kind,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )
        return results

    async def close(self) -> None:
        """Wait for no look-up."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def system_look_up(host: str, port: int) -> Sequence[AddressInfo]:
    """getaddrinfo, for streams."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def check_address(text: str, *, allow_private: bool) -> None:
    """RefusedAddressError unless webhooks may go to this address."""
    address = parse_address(text)
    if address is None or not (allow_private or is_public(address)):
        raise RefusedAddressError(1, "not an address that webhooks may go to")


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
        connector = aiohttp.TCPConnector(
            resolver=CheckedResolver(allow_private=allow_private, look_up=look_up),
            ttl_dns_cache=LOOK_UP_REMEMBERED_S,
            ssl=tls or _tls(),
            limit=0,  # the worker bounds what is in flight
            keepalive_timeout=IDLE_CONNECTION_S,
            socket_factory=self._open_socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),  # none of its own: _post has one for everything
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("Accept-Encoding",),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def send(self, webhook: Webhook) -> Attempt:
        """One attempt, over in `timeout_s` at most."""
        start_time, started_s = clock.now(), time.monotonic()
        answer = _Answer()
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
            retry_after_s=answer.retry_after_s,
        )

    async def _post(self, webhook: Webhook, answer: "_Answer") -> None:
        if not self._allow_private and not webhook.address.url.startswith("https://"):
            raise RefusedAddressError(1, "webhooks go over https only")
        timestamp_s = _receivers_time().timestamp()
        headers = {
            **webhook.address.headers,
            "content-type": "application/json",
            "user-agent": USER_AGENT,
            "webhook-id": webhook.webhook_id,
            "webhook-timestamp": str(int(timestamp_s)),
            "webhook-signature": signature_header(
                webhook.address.keys, webhook.webhook_id, int(timestamp_s), webhook.body
            ),
        }
        async with self._session.post(
            webhook.address.url, data=webhook.body, headers=headers, allow_redirects=False
        ) as response:
            answer.status = response.status
            asked = response.headers.get("retry-after", "")
            answer.retry_after_s = retry_after_s(asked, _receivers_time()) if asked else None
            while len(answer.body) < READ_BYTES_MAX:
                chunk = await response.content.read(READ_BYTES_MAX - len(answer.body))
                if not chunk:
                    return
                answer.body += chunk
            # The receiver has answered; what it goes on saying is of no interest.
            response.close()

    def _open_socket(self, info: AddressInfo) -> socket.socket:
        # Addresses written in the URL pass by the resolver, but nothing passes by here.
        family, kind, protocol, _, where = info
        check_address(str(where[0]), allow_private=self._allow_private)
        return socket.socket(family, kind, protocol)


class _Answer:
    """What has come of the answer so far, also when the rest never comes."""

    def __init__(self) -> None:
        self.status = 0
        self.retry_after_s: float | None = None
        self.body = bytearray()


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
    causes = (failure, getattr(failure, "os_error", None))
    if any(isinstance(cause, RefusedAddressError) for cause in causes):
        return "refused_address"
    if isinstance(failure, ClientConnectorDNSError | aiohttp.InvalidURL | UnicodeError):
        return "dns"
    if isinstance(failure, ClientSSLError | ssl.SSLError):
        return "tls"
    if not isinstance(failure, aiohttp.ClientError | OSError):
        log.error("webhook_attempt_failed", exc_info=failure)
    return "connection"
