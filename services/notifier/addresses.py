"""Which addresses a webhook may go to: public ones. Pure.

A customer chooses the URL and we make the request, from inside our network (server-side request
forgery, OWASP). `ipaddress.is_global` alone lets through several ranges that lead back inside, so
the ranges are written out here, from the IANA special-purpose address registries (RFC 6890 and its
updates) and the addresses of cloud metadata services.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

_DENIED_IPV4 = (
    "0.0.0.0/8",  # this network (RFC 791): reaches the own host on Linux
    "10.0.0.0/8",  # private (RFC 1918)
    "100.64.0.0/10",  # carrier-grade NAT (RFC 6598); 100.100.100.200 is Alibaba's metadata
    "127.0.0.0/8",  # loopback
    "168.63.129.16/32",  # Azure's host agent, though it looks public
    "169.254.0.0/16",  # link-local; 169.254.169.254 is the metadata of most clouds
    "172.16.0.0/12",  # private
    "192.0.0.0/24",  # IETF protocol assignments; 192.0.0.192 is Oracle's metadata
    "192.0.2.0/24",  # documentation (RFC 5737)
    "192.31.196.0/24",  # AS112 (RFC 7535)
    "192.52.193.0/24",  # AMT (RFC 7450)
    "192.88.99.0/24",  # 6to4 relays (RFC 7526)
    "192.168.0.0/16",  # private
    "192.175.48.0/24",  # AS112 (RFC 7534)
    "198.18.0.0/15",  # benchmarking (RFC 2544)
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, broadcast
)

# Of IPv6 only global unicast can be public, so what lies outside needs no list: loopback ::1,
# IPv4-mapped ::ffff:0:0/96, IPv4-compatible ::/96, NAT64 64:ff9b::/96, discard 100::/64, unique
# local fc00::/7 (fd00:ec2::254 is Amazon's metadata), link-local fe80::/10, site-local fec0::/10,
# multicast ff00::/8.
_GLOBAL_UNICAST_IPV6 = "2000::/3"
_DENIED_IPV6 = (
    "2001::/23",  # IETF protocol assignments: Teredo 2001::/32, benchmarking, ORCHID
    "2001:db8::/32",  # documentation (RFC 3849)
    "2002::/16",  # 6to4: carries any IPv4 address
    "2620:4f:8000::/48",  # AS112
    "3fff::/20",  # documentation (RFC 9637)
)

_denied_ipv4 = [IPv4Network(text) for text in _DENIED_IPV4]
_denied_ipv6 = [IPv6Network(text) for text in _DENIED_IPV6]
_global_unicast_ipv6 = ip_network(_GLOBAL_UNICAST_IPV6)


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """The address that `text` is, also in brackets or with a zone; None for a name."""
    try:
        return ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether a webhook may be sent to `address`."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _denied_ipv4)
    if address.scope_id is not None or address not in _global_unicast_ipv6:
        return False
    return not any(address in network for network in _denied_ipv6)
