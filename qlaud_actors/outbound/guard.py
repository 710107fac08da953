"""Keeps requests to other people's URLs away from private networks (SSRF).

A URL is parsed once. Its host is resolved by us, *every* address is checked, and the connection goes
to a checked address, so a name that changes its answer in between (DNS rebinding) gains nothing.
Redirects are never followed.
"""

import ipaddress
import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import TypeAlias
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

Address: TypeAlias = IPv4Address | IPv6Address

MAX_URL = 2048

# Cloud metadata services hand out credentials; they are refused even in development.
METADATA_ADDRESSES = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "fd00:ec2::254")
)
METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})

# Names that mean this machine or its neighbours, whatever they resolve to.
PRIVATE_NAMES = frozenset({"localhost", "host.docker.internal", "gateway.docker.internal", "kubernetes"})
PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".home.arpa", ".svc", ".svc.cluster.local")

# Not caught by the standard library's idea of "global".
EXTRA_NETWORKS = tuple(
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24",  # IETF protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "198.18.0.0/15",  # benchmarking
        "240.0.0.0/4",  # reserved
        "64:ff9b:1::/48",  # local-use NAT64
        "fec0::/10",  # site-local, deprecated but routed in places
    )
)
NAT64 = IPv6Network("64:ff9b::/96")
COMPATIBLE = IPv6Network("::/96")

_NUMERIC = re.compile(r"^(0x[0-9a-f]+|\d+)(\.(0x[0-9a-f]+|\d+)){0,3}$", re.IGNORECASE)


class ForbiddenURL(Exception):
    """This URL is not allowed; the message says why, in words for its owner."""


@dataclass(frozen=True, slots=True)
class GuardedUrl:
    """A URL that may be requested through a guarded session."""

    url: str
    host: str


def check_url(text: str, *, allow_private: bool) -> GuardedUrl:
    """Check everything that needs no resolver. Raises ForbiddenURL.

    With `allow_private` (development) http and private hosts are allowed, metadata services never.
    """
    if len(text) > MAX_URL or not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ForbiddenURL(f"must be a printable ASCII URL of at most {MAX_URL} characters")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ForbiddenURL("is not a valid URL") from None
    if parts.scheme != "https" and not (allow_private and parts.scheme == "http"):
        raise ForbiddenURL("must use https")
    if parts.username is not None or parts.password is not None:
        raise ForbiddenURL("must not contain credentials")
    if parts.fragment:
        raise ForbiddenURL("must not contain a fragment")
    if port == 0:
        raise ForbiddenURL("has no usable port")
    host = (parts.hostname or "").rstrip(".")
    _check_host(host, allow_private=allow_private)
    return GuardedUrl(text, host)


def forbidden(address: Address, *, allow_private: bool) -> str | None:
    """Why an address may not be connected to; None when it may."""
    inner = _inner(address)
    if address in METADATA_ADDRESSES or inner in METADATA_ADDRESSES:
        return "is a cloud metadata address"
    if allow_private:
        return None
    for one in (address, inner):
        if not one.is_global or one.is_multicast or one.is_reserved:
            return "is not a public address"
        if any(one in network for network in EXTRA_NETWORKS if network.version == one.version):
            return "is not a public address"
    return None


def _check_host(host: str, *, allow_private: bool) -> None:
    if not host:
        raise ForbiddenURL("has no host")
    if host in METADATA_NAMES:
        raise ForbiddenURL("names a cloud metadata service")
    literal = _literal(host)
    if literal is not None:
        if reason := forbidden(literal, allow_private=allow_private):
            raise ForbiddenURL(f"{host} {reason}")
        return
    if _NUMERIC.match(host):
        raise ForbiddenURL("writes an address in an unusual form")
    if not allow_private and (host in PRIVATE_NAMES or host.endswith(PRIVATE_SUFFIXES) or "." not in host):
        raise ForbiddenURL(f"{host} is not a public host")


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 address carries (mapped, compatible, NAT64, 6to4, Teredo)."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address.sixtofour:
        return address.sixtofour
    if address.teredo:
        return address.teredo[1]
    if address in NAT64 or (address in COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


class GuardedResolver(AbstractResolver):
    """Resolves names and gives only addresses that may be connected to."""

    def __init__(self, inner: AbstractResolver, *, allow_private: bool) -> None:
        self._inner = inner
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """All addresses of a host, each checked: one forbidden address forbids the host."""
        found = await self._inner.resolve(host, port, family)
        for result in found:
            address = ipaddress.ip_address(result["host"].partition("%")[0])
            if reason := forbidden(address, allow_private=self._allow_private):
                raise ForbiddenURL(f"{host} {reason}")
        return found

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._inner.close()


def open_guarded_session(
    allow_private: bool, resolver: AbstractResolver | None = None
) -> aiohttp.ClientSession:
    """A session for other people's URLs: own resolver, no cookies, no proxy of the environment."""
    guarded = GuardedResolver(resolver or aiohttp.ThreadedResolver(), allow_private=allow_private)
    connector = aiohttp.TCPConnector(limit=0, limit_per_host=256, resolver=guarded, use_dns_cache=False)
    return aiohttp.ClientSession(
        connector=connector,
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"user-agent": "qlaud-actors"},
    )
