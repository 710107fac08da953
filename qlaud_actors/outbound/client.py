"""The client of model providers: POSTs over kept connections, answers that are read as they come.

It follows no redirects, reads no proxy variables and keeps no cookies, so that a request goes
where it was sent and nowhere else.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from yarl import URL

from qlaud_actors.outbound.connections import Connections, Origin
from qlaud_actors.outbound.http1 import Answer, BrokenOff

MAX_STREAM_BYTES = 256 * 1024 * 1024
"""More than any model answers; a peer that sends without end is cut."""


class OutboundError(Exception):
    """The peer could not be reached or broke off; no headers, keys or bodies are in the message."""


class OutboundTimeoutError(OutboundError):
    """The peer took the request and then was silent for too long."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds. A model may think for minutes before its first byte."""

    connect: float = 10.0
    first_byte: float = 600.0
    between_bytes: float = 300.0


class Response:
    """An answer whose body is still arriving: `status`, lower-case `headers`, an iterator of chunks."""

    def __init__(self, answer: Answer, timeouts: Timeouts) -> None:
        self._answer = answer
        self._timeouts = timeouts
        self._received = 0
        self.status = answer.status
        self.headers = answer.headers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        """The connection is closed unless the answer has come to its end."""
        self._answer.leave()

    def __aiter__(self) -> "Response":
        return self

    async def __anext__(self) -> bytes:
        """The bytes that have arrived. Raises OutboundError when the peer breaks off or sends too much."""
        if chunk := await self._more():
            return chunk
        raise StopAsyncIteration

    async def read_limited(self, limit: int) -> bytes:
        """At most the first `limit` bytes of the body; the rest is not read."""
        chunks = []
        while self._received < limit and (chunk := await self._more()):
            chunks.append(chunk)
        return b"".join(chunks)[:limit]

    async def _more(self) -> bytes:
        timeouts = self._timeouts
        with _NAMED:
            chunk = await self._answer.more(timeouts.between_bytes if self._received else timeouts.first_byte)
        self._received += len(chunk)
        if self._received > MAX_STREAM_BYTES:
            raise OutboundError("the answer is too large")
        return chunk


@dataclass(frozen=True, slots=True)
class _Target:
    """A URL, ready to be asked."""

    origin: Origin
    head: str
    """The first lines of a request."""
    authorization: str
    """From the user and password of the URL, where it has them."""


class Client:
    """Sends requests; made by `open_client`."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._connections = Connections(timeouts.connect)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        """POST `body`; the answer, of whatever status, once its headers have come. To be used in a `with`.

        Raises OutboundError.
        """
        target, timeouts = _target(url), self._timeouts
        request = _head(target, headers, len(body)) + body
        with _NAMED:
            connection = self._connections.take(target.origin)
            if connection is None:
                connection = await self._connections.open(target.origin)
            answer = connection.send(request)
            try:
                await answer.head(timeouts.first_byte)
            except BaseException:
                answer.leave()
                raise
        return Response(answer, timeouts)

    async def close(self) -> None:
        """Close all connections."""
        self._connections.close()


def open_client(timeouts: Timeouts | None = None) -> Client:
    """A client for the running event loop."""
    return Client(timeouts or Timeouts())


@lru_cache(maxsize=1024)
def _target(text: str) -> _Target:
    url = URL(text)
    assert url.raw_host is not None  # base URLs are checked when they are read
    assert url.port is not None
    head = (
        f"POST {url.raw_path_qs} HTTP/1.1\r\nhost: {url.host_port_subcomponent}\r\n"
        "accept: */*\r\naccept-encoding: identity\r\nuser-agent: qlaud-actors\r\n"
    )
    named = f"{url.user or ''}:{url.password or ''}"
    basic = f"authorization: Basic {base64.b64encode(named.encode()).decode()}\r\n"
    origin = Origin(url.raw_host, url.port, tls=url.scheme == "https")
    return _Target(origin, head, basic if named != ":" else "")


def _head(target: _Target, headers: Mapping[str, str], length: int) -> bytes:
    """Raises ValueError for a header that would be two."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if not lines.count("\r") == lines.count("\n") == len(headers) or "\0" in lines:
        raise ValueError("a header has a line break")
    basic = "" if "authorization" in headers else target.authorization
    return f"{target.head}{basic}{lines}content-length: {length}\r\n\r\n".encode()


class _Named:
    """What went wrong, by its kind only."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, BrokenOff):
            raise OutboundError(str(error)) from error
        if isinstance(error, TimeoutError):
            raise OutboundTimeoutError("no answer in time") from error
        if isinstance(error, OSError):
            raise OutboundError(type(error).__name__) from error


_NAMED = _Named()
