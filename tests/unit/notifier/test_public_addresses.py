"""Which addresses webhooks may go to."""

from ipaddress import ip_address, ip_network

import pytest

from services.notifier.addresses import is_public, parse_address

DENIED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",  # Alibaba's metadata
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",  # Azure's host agent
    "169.254.0.1",
    "169.254.169.254",  # metadata of most clouds
    "169.254.170.2",  # Amazon ECS
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",  # Oracle's metadata
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.255",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",  # IPv4-compatible loopback
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:169.254.169.254",
    "64:ff9b::1.2.3.4",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",  # Teredo
    "2001:0:a9fe:a9fe::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::1",  # 6to4 of 127.0.0.1
    "2002:808:808::1",
    "3fff::1",
    "3fff:fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",  # Amazon's metadata
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1111%eth0",
    "febf::1",
    "fec0::1",
    "ff02::1",
]

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "168.63.129.15",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.1",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2000::1",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700:4700::1111",
    "2a00:1450::1",
    "3ffe::1",
]


# Every range of the IANA registries of special-purpose addresses that is not globally reachable,
# the issue's own, and what stands for an IPv4 address inside an IPv6 one.
RANGES = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "192.0.0.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "::ffff:0:0/96",
    "::ffff:0:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/32",
    "2001::/23",
    "2001:2::/48",
    "2001:10::/28",
    "2001:20::/28",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]
# Those of them whose neighbours on both sides are ordinary addresses.
ALONE = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "2001:db8::/32",
    "2620:4f:8000::/48",
]


@pytest.mark.parametrize("text", [*RANGES, *ALONE])
def test_no_address_of_a_special_range_is_public(text: str) -> None:
    network = ip_network(text)
    size = network.num_addresses
    for place in (0, 1, size // 3, size // 2, size - 2, size - 1):
        assert not is_public(network[place]), network[place]


@pytest.mark.parametrize("text", ALONE)
def test_the_neighbours_of_a_special_range_are_public(text: str) -> None:
    network = ip_network(text)
    assert is_public(network[0] - 1)
    assert is_public(network[-1] + 1)


@pytest.mark.parametrize("text", DENIED)
def test_an_address_that_may_lead_inside_is_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_an_ordinary_address_is_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", ["[::1]", "::1", "127.0.0.1", "fe80::1%eth0"])
def test_an_address_is_read_as_it_may_stand_in_a_url(text: str) -> None:
    address = parse_address(text)
    assert address is not None
    assert not is_public(address)


@pytest.mark.parametrize(
    "text", ["example.com", "localhost", "", "127.1", "0x7f000001", "1.2.3.04"]
)
def test_a_name_is_no_address(text: str) -> None:
    assert parse_address(text) is None
