"""Keeps requests to other people's URLs away from private networks (SSRF).

A URL is parsed once, by the parser of the client that will use it. Its host is resolved by us, *every*
address is checked, and the connection goes to a checked address, so a name that changes its answer in
between (DNS rebinding) gains nothing; Host and SNI keep the name. The socket is checked once more,
because aiohttp asks no resolver about a literal address. Redirects are never followed.
"""

import asyncio
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, TypeAlias

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from qlaud_actors.outbound.attempt import current

Address: TypeAlias = IPv4Address | IPv6Address
Networks: TypeAlias = tuple[IPv4Network | IPv6Network, ...]
Lookup: TypeAlias = Callable[..., list[Any]]
"""As socket.getaddrinfo."""

MAX_URL = 2048
RESOLVER_THREADS = 16


def _networks(*texts: str) -> Networks:
    return tuple(ip_network(text) for text in texts)


# Clouds hand out credentials here: refused always, in development too.
METADATA = _networks(
    "169.254.0.0/16",  # link-local: AWS, GCP, Azure …254, ECS and EKS …170.x
    "100.100.100.200/32",  # Alibaba
    "168.63.129.16/32",  # Azure's host agent, on a public address
    "192.0.0.192/32",  # Oracle
    "fd00:ec2::/32",  # AWS: ::254 metadata, ::23 EKS
    "fd20:ce::254/128",  # GCP
)
# Nobody's webhook is here: refused always.
RESERVED = _networks(
    "0.0.0.0/8",  # "this host", RFC 1122; Linux connects 0.0.0.0 to itself
    "192.0.0.0/24",  # protocol assignments, RFC 6890
    "192.0.2.0/24",  # documentation, RFC 5737, as the next two
    "198.51.100.0/24",
    "203.0.113.0/24",
    "192.88.99.0/24",  # 6to4 relays, RFC 7526
    "198.18.0.0/15",  # benchmarks, RFC 2544
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and broadcast
    "::/128",  # "this host"
    "::ffff:0:0/96",  # v4-mapped, RFC 4291: hides an IPv4 address
    "::ffff:0:0:0/96",  # v4-translated, RFC 2765: hides one too
    "64:ff9b:1::/48",  # local NAT64, RFC 8215
    "100::/64",  # discard, RFC 6666
    "2001::/23",  # protocol assignments, RFC 2928; Teredo is 2001::/32
    "2001:db8::/32",  # documentation, as 3fff
    "2002::/16",  # 6to4, RFC 3056: hides an IPv4 address
    "3fff::/20",
    "5f00::/16",  # segment routing, RFC 9602
    "fe80::/10",  # link-local
    "fec0::/10",  # site-local, RFC 3879: deprecated but routed in places
    "ff00::/8",  # multicast
)
# Refused unless the operator allows private hosts.
PRIVATE = _networks(
    "127.0.0.0/8",  # loopback
    "::1/128",
    "10.0.0.0/8",  # RFC 1918, as the next two
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",  # carriers' own, RFC 6598
    "fc00::/7",  # unique local, RFC 4193
)
COMPATIBLE = IPv6Network("::/96")  # RFC 4291: hides an IPv4 address; `::1` is in it and judged before
NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: IPv6-only networks reach IPv4 through it

METADATA_NAMES = frozenset(
    {"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}
)
# Names that mean this machine or its neighbours, whatever they resolve to: `host.docker.internal`,
# `x.svc.cluster.local`, `printer.local`. A name without a dot is a neighbour's too.
PRIVATE_SUFFIXES = tuple(
    f".{name}"
    for name in ("localhost", "localdomain", "local", "internal", "intranet", "home.arpa", "lan", "svc")
)

_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_CREDENTIALS = re.compile(r"[^/]*//[^/?#]*@")
# What inet_aton takes for an address: decimal, octal and hexadecimal, in one to four parts.
_NUMERIC = re.compile(r"(0x[0-9a-f]*|\d+)(\.(0x[0-9a-f]*|\d+)){0,3}")


class ForbiddenURL(Exception):
    """This URL is not allowed; the message says why, in words for its owner."""


@dataclass(frozen=True, slots=True)
class GuardedUrl:
    """A URL that may be requested through a guarded session: parsed once, used as parsed."""

    url: URL
    host: str


def check_url(
    text: str, *, allow_private: bool, as_spelled: bool = False, max_length: int = MAX_URL
) -> GuardedUrl:
    """Check everything that needs no resolver. Raises ForbiddenURL.

    With `allow_private` (development) http and private hosts are allowed, metadata services never.
    `as_spelled`: it is escaped already, and sent as it is.
    """
    if len(text) > max_length or not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ForbiddenURL(f"must be a printable ASCII URL of at most {max_length} characters")
    try:
        url = URL(text, encoded=as_spelled)
        port = url.port
    except ValueError:
        raise ForbiddenURL("is not a valid URL") from None
    if url.scheme != "https" and not (allow_private and url.scheme == "http"):
        raise ForbiddenURL("must use https")
    if _CREDENTIALS.match(text):
        raise ForbiddenURL("must not contain credentials")
    if "#" in text:
        raise ForbiddenURL("must not contain a fragment")
    if not port:
        raise ForbiddenURL("has no usable port")
    host = (url.raw_host or "").lower().removesuffix(".")
    _check_host(host, allow_private=allow_private)
    return GuardedUrl(url, host)


def forbidden(address: Address, *, allow_private: bool) -> str | None:
    """Why an address may not be connected to; None when it may."""
    if address in NAT64:
        return forbidden(IPv4Address(int(address) & 0xFFFFFFFF), allow_private=allow_private)
    if _within(address, METADATA):
        return "is or may be a cloud metadata address"
    if allow_private and _within(address, PRIVATE):
        return None
    if _within(address, RESERVED) or _within(address, PRIVATE) or address in COMPATIBLE:
        return "is not a public address"
    # A net under the tables: what the standard library knows to be none.
    return None if address.is_global else "is not a public address"


def _within(address: Address, networks: Networks) -> bool:
    return any(address in network for network in networks)


def _check_host(host: str, *, allow_private: bool) -> None:
    if host in METADATA_NAMES:
        raise ForbiddenURL("names a cloud metadata service")
    try:
        literal = ip_address(host)
    except ValueError:
        literal = None
    if literal is not None:
        check_address(literal, host, allow_private=allow_private)
    elif _NUMERIC.fullmatch(host):
        raise ForbiddenURL("writes an address in an unusual form")
    elif not _HOST.fullmatch(host):
        raise ForbiddenURL("has no valid host")
    elif not allow_private and (host.endswith(PRIVATE_SUFFIXES) or "." not in host):
        raise ForbiddenURL(f"names {host}, which is not a public host")


def check_address(address: Address, host: str, *, allow_private: bool) -> None:
    """Raises ForbiddenURL. It does not say where a name leads: strangers would learn our network."""
    if "%" in str(address):
        raise ForbiddenURL("names a network interface of this machine")
    if reason := forbidden(address, allow_private=allow_private):
        raise ForbiddenURL(f"leads to {host}, which {reason}")


class GuardedResolver(AbstractResolver):
    """Resolves names and gives only addresses that may be connected to.

    It has threads of its own: a name server that does not answer holds up webhooks, not everything
    else that this process does in threads.
    """

    def __init__(self, *, allow_private: bool, lookup: Lookup = socket.getaddrinfo) -> None:
        self._allow_private = allow_private
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """All addresses of a host, each checked: one forbidden address forbids the host.

        Raises ForbiddenURL, and OSError when the name does not resolve.
        """
        lookup = partial(self._lookup, host, port, family=family, type=socket.SOCK_STREAM)
        infos = await asyncio.get_running_loop().run_in_executor(self._threads, lookup)
        for *_, to in infos:
            check_address(ip_address(to[0].partition("%")[0]), host, allow_private=self._allow_private)
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=to[0], port=port, family=kind, proto=protocol, flags=numeric)
            for kind, _, protocol, _, to in infos
        ]

    async def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def open_guarded_session(allow_private: bool, lookup: Lookup = socket.getaddrinfo) -> aiohttp.ClientSession:
    """A session for other people's URLs: own resolver, no cookies, no proxy of the environment.

    Every request has a connection of its own. One that is kept alive may be closed by the peer just as
    a call is sent on it, and then nobody knows whether the call has happened.
    """

    def open_socket(info: Any) -> socket.socket:
        family, kind, protocol, _, to = info
        check_address(ip_address(to[0]), "an address", allow_private=allow_private)
        if attempt := current.get():
            if attempt.sent:
                # aiohttp makes a GET, PUT or DELETE again when the peer hung up: that is not its decision.
                raise ConnectionAbortedError
            attempt.addresses.append(to[0])
        return socket.socket(family, kind, protocol)

    async def note_sent(*_: Any) -> None:
        if attempt := current.get():
            attempt.sent = True

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(note_sent)
    connector = aiohttp.TCPConnector(
        limit=0,
        limit_per_host=256,
        force_close=True,
        resolver=GuardedResolver(allow_private=allow_private, lookup=lookup),
        use_dns_cache=False,
        socket_factory=open_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"accept-encoding": "identity", "user-agent": "qlaud-actors"},
        trace_configs=[trace],
        trust_env=False,
    )
