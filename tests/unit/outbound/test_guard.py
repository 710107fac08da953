"""Which of other people's URLs may be requested."""

import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from yarl import URL

from qlaud_actors.outbound.guard import ForbiddenURL, GuardedResolver, check_url, forbidden

MALFORMED = [
    "",
    "example.com",
    "https:example.com",
    "https:///path",
    "https://.",
    "https://[::1",
    "https://exämple.com/",
    "https://example.com/a b",
    "https://example.com/\n",
    "https://example.com\\@evil.example/",
    "https://example.com/" + "a" * 2048,
    "https://example.com:99999/",
    "https://example.com:0/",
    "https://user@example.com/",
    "https://user:pass@example.com/",
    "https://example.com/#top",
    "https://@example.com/",
    "https://example.com,127.0.0.1/",
    "https://[2606:4700::1111%25lo]/",
    "https://[fe80::1%25eth0]/",
    "https://[fd00:ec2::254%25eth0]/",
    "https://%31%32%37.0.0.1/",
    "https://8.8.8.8%.example.com/",
    "https://a..example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
]
UNUSUAL_NUMBERS = ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.0.0.1", "0", "127.0.0.1.", "10.1"]
PRIVATE_NAMES = [
    "localhost",
    "LOCALHOST",
    "localhost.",
    "db",
    "a.localhost",
    "printer.local",
    "host.docker.internal",
    "kubernetes",
    "api.default.svc",
    "api.default.svc.cluster.local",
    "nas.home.arpa",
]
METADATA = [
    "metadata",
    "metadata.google.internal",
    "METADATA.google.internal.",
    "metadata.goog",
    "instance-data",
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "[fd00:ec2::254]",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::1]",
]
PRIVATE_ADDRESSES = [
    *("0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.0.1"),
    *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("100.64.0.1", "100.127.255.255", "169.254.1.1"),
    *("192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd12::1", "ff02::1", "ff0e::1"),
    *("100::1", "2001:db8::1", "3fff::1", "5f00::1", "64:ff9b:1::1"),
    *("::ffff:10.0.0.1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::10.0.0.1"),
    *("2002:7f00:1::", "2002:c0a8:101::1", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
]
PUBLIC_ADDRESSES = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"]


@pytest.mark.parametrize("url", MALFORMED)
@pytest.mark.parametrize("allow_private", [False, True])
def test_a_url_that_parsers_may_read_differently_is_refused(url: str, allow_private: bool) -> None:
    """Wrong schemes, credentials, fragments, port 0 and odd hosts are refused, in development too."""
    with pytest.raises(ForbiddenURL):
        check_url(url, allow_private=allow_private)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://Example.COM:8443/hook?a=b",
        "https://example.com./",
        "https://xn--mnchen-3ya.example/",
        "https://a_b.example.com/",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]:444/x",
    ],
)
def test_a_public_https_url_is_allowed(url: str) -> None:
    """An ordinary public URL passes unchanged."""
    guarded = check_url(url, allow_private=False)
    assert guarded.url == URL(url)
    assert guarded.host == (urlsplit(url).hostname or "").rstrip(".")


def test_http_is_only_for_development() -> None:
    """Plain http, loopback and single-label names pass with `allow_private` and only then."""
    for url in (
        "http://example.com/",
        "http://127.0.0.1:1/",
        "http://[::1]:1/",
        "http://web/",
        "https://10.1.2.3/",
    ):
        assert check_url(url, allow_private=True)
        with pytest.raises(ForbiddenURL):
            check_url(url, allow_private=False)


@pytest.mark.parametrize("host", [*PRIVATE_NAMES, *UNUSUAL_NUMBERS])
def test_private_names_and_disguised_addresses_are_refused(host: str) -> None:
    """Names of this machine or network and addresses in decimal, octal or hex do not pass."""
    with pytest.raises(ForbiddenURL):
        check_url(f"https://{host}/", allow_private=False)


@pytest.mark.parametrize("address", PRIVATE_ADDRESSES)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    """Private, local, reserved and documentation addresses are refused, also inside IPv6 forms."""
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(ForbiddenURL):
        check_url(f"https://{host}/", allow_private=False)


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES)
def test_a_public_address_is_allowed(address: str) -> None:
    """Public addresses next to the private ranges are not caught by them."""
    assert forbidden(ipaddress.ip_address(address), allow_private=False) is None


@pytest.mark.parametrize("host", METADATA)
@pytest.mark.parametrize("allow_private", [False, True])
def test_cloud_metadata_is_always_refused(host: str, allow_private: bool) -> None:
    """A cloud's metadata service stays out of reach, even where private hosts are allowed."""
    with pytest.raises(ForbiddenURL):
        check_url(f"https://{host}/", allow_private=allow_private)


@pytest.mark.parametrize("host", ["2130706433", "0xa9fea9fe", "0177.0.0.1", "127.1"])
def test_disguised_addresses_are_refused_in_development(host: str) -> None:
    """An address in an unusual form could hide a metadata address, so it never passes."""
    with pytest.raises(ForbiddenURL, match="unusual form"):
        check_url(f"http://{host}/", allow_private=True)


def answering(*answers: list[str]) -> Callable[..., list[Any]]:
    """A getaddrinfo that gives its answers one after another."""
    left = list(answers)

    def lookup(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in left.pop(0)]

    return lookup


@asynccontextmanager
async def resolver(*answers: list[str], allow_private: bool = False) -> AsyncIterator[GuardedResolver]:
    """A guarded resolver over fixed answers."""
    guarded = GuardedResolver(allow_private=allow_private, lookup=answering(*answers))
    try:
        yield guarded
    finally:
        await guarded.close()


async def test_one_private_address_among_public_ones_forbids_a_host() -> None:
    """A name with a public and a private address is refused as a whole, in either order, unquoted."""
    async with resolver(["8.8.8.8", "10.0.0.1"], ["::1", "8.8.8.8"]) as guarded:
        for _ in range(2):
            with pytest.raises(ForbiddenURL) as caught:
                await guarded.resolve("example.com", 443)
            assert "10.0.0.1" not in str(caught.value)


async def test_every_resolution_is_checked() -> None:
    """A name that turns private after its first answer (rebinding) is refused the second time."""
    async with resolver(["8.8.8.8", "1.1.1.1"], ["127.0.0.1"]) as guarded:
        found = await guarded.resolve("example.com", 443)
        assert [result["host"] for result in found] == ["8.8.8.8", "1.1.1.1"]
        with pytest.raises(ForbiddenURL):
            await guarded.resolve("example.com", 443)


async def test_a_resolved_metadata_address_is_refused_in_development() -> None:
    """With `allow_private` a name may lead to loopback, not to metadata, with or without a zone."""
    answers = (["127.0.0.1"], ["169.254.169.254"], ["fd00:ec2::254%eth0"])
    async with resolver(*answers, allow_private=True) as guarded:
        assert await guarded.resolve("example.com", 80)
        for _ in range(2):
            with pytest.raises(ForbiddenURL):
                await guarded.resolve("example.com", 80)
