"""How fast an organization and a key may go, and where a key may be used from: what is valid."""

import ipaddress
from collections.abc import Sequence
from typing import Final, TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# A second, of an organization in each mode. The defaults are far beyond what one stack stores:
# they only keep one organization from taking all of a large one.
REQUESTS_PER_S_DEFAULT: Final = 50_000
REQUESTS_PER_S_MAX: Final = 1_000_000
EVENTS_PER_S_DEFAULT: Final = 1_000_000
EVENTS_PER_S_MAX: Final = 10_000_000
NETWORKS_MAX: Final = 50


def network(text: str) -> Network:
    """The network that `text` names, "203.0.113.0/24" or one address; ValueError."""
    if "%" in text:
        raise ValueError(text)
    return ipaddress.ip_network(text.strip())


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Each network once, in the order in which they were given; ValueError."""
    return tuple(dict.fromkeys(network(text) for text in texts))


def address(text: str) -> Address | None:
    """The address, an IPv4 one also when it is written as IPv6; None: it is none."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def is_within(text: str, allowed: Sequence[Network]) -> bool:
    """Whether the address is in one of the networks; what is no address is in none."""
    found = address(text)
    return found is not None and any(found in each for each in allowed)
