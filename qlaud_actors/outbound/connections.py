"""Connections to model providers: kept after an answer, and used again by who asks the same origin."""

import asyncio
import socket
import ssl
from collections import defaultdict
from functools import cache
from typing import NamedTuple

import aiohappyeyeballs

from qlaud_actors.outbound.http1 import BrokenOff, Connection

KEEP_SECONDS = 15.0
"""How long a connection is kept without a request; most peers wait longer before they close theirs."""

NEXT_ADDRESS_SECONDS = 0.25
"""After which the next address of a host is tried beside the one before (RFC 8305)."""


class Origin(NamedTuple):
    """Where connections go."""

    host: str
    port: int
    tls: bool


class _Kept:
    """Those of one origin."""

    def __init__(self) -> None:
        self.all: set[Connection] = set()
        self.idle: list[Connection] = []
        """The one that was used last stands last."""

    def free(self, connection: Connection) -> None:
        """It may carry another request."""
        connection.free_since = asyncio.get_running_loop().time()
        self.idle.append(connection)

    def gone(self, connection: Connection) -> None:
        """It is closed."""
        self.all.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)


class Connections:
    """All that one client has, in one event loop."""

    def __init__(self, connect_seconds: float) -> None:
        self._connect_seconds = connect_seconds
        self._kept: defaultdict[Origin, _Kept] = defaultdict(_Kept)
        self._sweeper: asyncio.TimerHandle | None = None

    def take(self, origin: Origin) -> Connection | None:
        """One that is free, if any."""
        idle = self._kept[origin].idle
        while idle:
            connection = idle.pop()
            if not connection.closing:
                return connection
        return None

    async def open(self, origin: Origin) -> Connection:
        """A new one. Raises BrokenOff when that takes too long, OSError."""
        loop, kept = asyncio.get_running_loop(), self._kept[origin]
        if self._sweeper is None:
            self._sweeper = loop.call_later(KEEP_SECONDS / 2, self._sweep)
        try:
            async with asyncio.timeout(self._connect_seconds):
                found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
                opened = await aiohappyeyeballs.start_connection(
                    found, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1
                )
                _, connection = await loop.create_connection(
                    lambda: Connection(kept),
                    sock=opened,
                    ssl=_tls() if origin.tls else None,
                    server_hostname=origin.host if origin.tls else None,
                )
        except TimeoutError:
            raise BrokenOff("no connection in time") from None
        kept.all.add(connection)
        return connection

    def close(self) -> None:
        """Break all of them off."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for kept in self._kept.values():
            for connection in list(kept.all):
                connection.abort()

    def _sweep(self) -> None:
        """Close those that nobody has used for a while."""
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(KEEP_SECONDS / 2, self._sweep)
        for kept in self._kept.values():
            while kept.idle and kept.idle[0].free_since < loop.time() - KEEP_SECONDS:
                kept.idle.pop(0).abort()


@cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
