"""Which addresses may be connected to: public ones, and what the operator lists."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mezzo.prompt.media.addresses import AllowedHost, PublicAddresses, is_public

REFUSED = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200",
    "100.127.255.255", "127.0.0.1", "127.1.2.3", "168.63.129.16", "169.254.0.1", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1",
    "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255",
    "240.0.0.1", "255.255.255.255", "::", "::1", "::2", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:169.254.169.254", "::127.0.0.1", "::8.8.8.8", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1",
    "64:ff9b::169.254.169.254", "64:ff9b::a00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:7f00:1::",
    "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:0808:0808::", "3fff::1", "5f00::1",
    "fc00::1", "fd00:ec2::254", "fdff::1", "fe80::1", "fec0::1", "ff02::1", "ff0e::1", "4000::1",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1", "8.8.8.8", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1",
    "192.0.1.1", "223.255.255.255", "2606:4700:4700::1111", "2a00:1450::1", "2001:4860:4860::8888",
    "2001:200::1", "::ffff:8.8.8.8", "64:ff9b::808:808",
]  # fmt: skip


@pytest.mark.parametrize("address", REFUSED)
def test_refused(address: str) -> None:
    assert not is_public(ip_address(address))
    assert not PublicAddresses().permits("name", ip_address(address), 443)


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(ip_address(address))
    assert PublicAddresses().permits("name", ip_address(address), 443)


@given(st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address))
@settings(max_examples=2000)
def test_nothing_is_public_that_python_knows_to_be_special(address: IPv4Address | IPv6Address) -> None:
    if is_public(address):
        assert address.is_global
        assert not address.is_private
        assert not address.is_multicast


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=500)
def test_an_embedded_address_is_judged_like_the_address(number: int) -> None:
    plain = is_public(IPv4Address(number))
    assert is_public(IPv6Address((0xFFFF << 32) | number)) == plain
    assert is_public(IPv6Address((0x64FF9B << 96) | number)) == plain


class TestPorts:
    @pytest.mark.parametrize("port", [22, 25, 6379, 8080, 0, 65535])
    def test_others_than_the_webs_are_closed(self, port: int) -> None:
        assert not PublicAddresses().permits("a.example", ip_address("8.8.8.8"), port)

    def test_the_operator_may_open_more(self) -> None:
        assert PublicAddresses(ports=frozenset({8080})).permits("a.example", ip_address("8.8.8.8"), 8080)


class TestAllowedHosts:
    @pytest.mark.parametrize(
        ("entry", "host", "address", "port", "permitted"),
        [
            ("minio", "minio", "10.0.0.9", 80, True),
            ("minio", "minio", "10.0.0.9", 9000, False),
            ("minio", "other", "10.0.0.9", 80, False),
            ("minio:9000", "minio", "10.0.0.9", 9000, True),
            ("minio:9000", "minio", "10.0.0.9", 80, False),
            ("MinIO:9000", "minio", "10.0.0.9", 9000, True),
            ("minio:9000", "evil.minio", "10.0.0.9", 9000, False),
            ("localhost:9000", "localhost", "127.0.0.1", 9000, True),
            ("10.0.0.5:9000", "anything.example", "10.0.0.5", 9000, True),
            ("10.0.0.5:9000", "10.0.0.6", "10.0.0.6", 9000, False),
            ("10.1.0.0/16", "x.example", "10.1.2.3", 443, True),
            ("10.1.0.0/16", "x.example", "10.1.2.3", 22, False),
            ("10.1.0.0/16", "x.example", "10.2.2.3", 443, False),
            ("10.1.0.0/16", "x.example", "::ffff:10.1.2.3", 443, True),
            ("[fd00::1]:9000", "x.example", "fd00::1", 9000, True),
            ("fd00::/8", "x.example", "fd00::2", 443, True),
            ("169.254.0.0/16", "x.example", "169.254.169.254", 80, False),
            ("metadata", "metadata", "169.254.169.254", 80, False),
            ("metadata", "metadata", "::ffff:169.254.169.254", 80, False),
            ("fd00::/8", "x.example", "fd00:ec2::254", 80, False),
        ],
    )
    def test_what_an_entry_permits(
        self, entry: str, host: str, address: str, port: int, permitted: bool
    ) -> None:
        policy = PublicAddresses(allowed_hosts=(entry,))
        assert policy.permits(host, ip_address(address), port) is permitted

    @pytest.mark.parametrize(
        "entry",
        ["", " ", "http://minio", "a/b", "minio:", "minio:0", "minio:70000", "minio:x", "10.0.0.1/8", "10.0.0.300",
         "[fd00::1", "[fd00::1]9000", "user@host", "*.example.com"],
    )  # fmt: skip
    def test_what_is_no_host_is_an_error(self, entry: str) -> None:
        with pytest.raises(ValueError, match="is not a host"):
            AllowedHost.parse(entry)
