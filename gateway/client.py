"""Where a request comes from."""

import ipaddress
from collections.abc import Mapping

from gateway.wire import Scope
from services.kit.limits import Address, Network
from services.kit.limits import address as parsed

# Of the addresses in X-Forwarded-For, how many are looked at, from the last one on.
FORWARDED_MAX = 16


def networks(text: str | tuple[Network, ...]) -> tuple[Network, ...]:
    """The networks in "10.0.0.0/8, ::1"; ValueError says which one is none."""
    if isinstance(text, tuple):
        return text
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


class Clients:
    """Tells the address of whoever sent a request.

    X-Forwarded-For is anybody's to write: it is believed only as far as proxies that the operator
    has named have written it.
    """

    def __init__(self, trusted_proxies: tuple[Network, ...] = ()) -> None:
        self._trusted = trusted_proxies

    def address(self, scope: Scope, headers: Mapping[bytes, bytes]) -> str:
        """The client's address; "" when nobody knows, as of a connection by a Unix socket."""
        client = scope.get("client")
        found = parsed(client[0]) if client else None
        if found is None or not self._is_trusted(found):
            return str(found or "")
        forwarded = headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")
        for text in reversed(forwarded[-FORWARDED_MAX:]):
            address = parsed(text.strip())
            if address is None:
                break
            found = address
            if not self._is_trusted(address):
                break
        return str(found)

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)
