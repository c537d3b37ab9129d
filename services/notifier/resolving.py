"""From names to addresses that webhooks may go to."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from services.notifier.addresses import is_public, parse_address
from services.notifier.limits import KeyedSlots

LOOK_UPS_RUNNING_MAX = 32
LOOK_UPS_OF_ONE_MAX = 8  # of one organization, so that names that hang hold up no other
LOOK_UP_REMEMBERED_S = 10.0
REMEMBERED_MAX = 10_000  # names; the one that was asked first is forgotten

AddressInfo = tuple[
    int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
]
Key = tuple[str, str, int]  # organization, name, port
LookUp = Callable[[str, int], Sequence[AddressInfo]]


class RefusedAddressError(OSError):
    """The address is not one that webhooks may go to."""


class UnknownNameError(OSError):
    """The name has no address, or nobody says so in time."""


def system_look_up(host: str, port: int) -> Sequence[AddressInfo]:
    """getaddrinfo, for streams."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def check_address(text: str, *, allow_private: bool) -> None:
    """RefusedAddressError unless webhooks may go to this address."""
    address = parse_address(text)
    if address is None or not (allow_private or is_public(address)):
        raise RefusedAddressError(1, "not an address that webhooks may go to")


class CheckedResolver:
    """Resolves a name once, in threads of its own, and refuses it when any address is denied.

    One denied address among public ones is what an attack looks like, not a working receiver.
    Who asks while a name is being looked up waits for the same answer; a good one is remembered
    for 10 s, for the organization that asked. Addresses pass by here, too: getaddrinfo knows more
    ways to write one than we do.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        look_up: LookUp,
        remembered_s: float = LOOK_UP_REMEMBERED_S,
    ) -> None:
        self._allow_private = allow_private
        self._look_up = look_up
        self._remembered_s = remembered_s
        # Names that hang must not keep other work of the process from its threads.
        self._slots = KeyedSlots(LOOK_UPS_OF_ONE_MAX)
        self._threads = ThreadPoolExecutor(LOOK_UPS_RUNNING_MAX, thread_name_prefix="dns")
        self._asked: dict[Key, asyncio.Future[Sequence[AddressInfo]]] = {}

    async def resolve(self, host: str, port: int, organization_id: str) -> Sequence[AddressInfo]:
        """The addresses of `host`: at least one. RefusedAddressError, UnknownNameError.

        An organization has look-ups of its own: it waits for none but those.
        """
        key = (organization_id, host, port)
        asked = self._asked.get(key) or self._ask(key)
        # Whoever stops waiting does not take the answer from the others.
        return await asyncio.shield(asked)

    def _ask(self, key: Key) -> asyncio.Future[Sequence[AddressInfo]]:
        if len(self._asked) >= REMEMBERED_MAX:
            del self._asked[next(iter(self._asked))]
        asked = asyncio.ensure_future(self._resolve(*key))
        self._asked[key] = asked
        asked.add_done_callback(lambda _asked: self._answered(key, asked))
        return asked

    def _answered(self, key: Key, asked: asyncio.Future[Sequence[AddressInfo]]) -> None:
        good = not asked.cancelled() and asked.exception() is None
        if good and self._remembered_s:
            loop = asyncio.get_running_loop()
            loop.call_later(self._remembered_s, self._forget, key, asked)
        else:
            self._forget(key, asked)

    def _forget(self, key: Key, asked: asyncio.Future[Sequence[AddressInfo]]) -> None:
        if self._asked.get(key) is asked:
            del self._asked[key]

    async def _resolve(self, organization_id: str, host: str, port: int) -> Sequence[AddressInfo]:
        loop = asyncio.get_running_loop()
        try:
            async with self._slots.hold(organization_id):
                found = await loop.run_in_executor(self._threads, self._look_up, host, port)
        except (OSError, UnicodeError) as error:
            raise UnknownNameError("the name has no address") from error
        if not found:
            raise UnknownNameError("the name has no address")
        for *_, where in found:
            check_address(str(where[0]), allow_private=self._allow_private)
        return found

    def close(self) -> None:
        """Wait for no look-up."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for asked in self._asked.values():
            asked.cancel()
