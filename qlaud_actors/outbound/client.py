"""The one aiohttp client session: streamed POSTs to model providers and webhooks.

It follows no redirects, reads no proxy variables and keeps no cookies, so that a request goes
where it was sent and nowhere else.
"""

import asyncio
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import aiohttp

MAX_HEADER_BYTES = 16 * 1024
MAX_STREAM_BYTES = 256 * 1024 * 1024
"""More than any model answers; a peer that sends without end is cut."""

LARGE_BODY_BYTES = 1024 * 1024


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

    @cached_property
    def of_session(self) -> aiohttp.ClientTimeout:
        """As the session takes them."""
        return aiohttp.ClientTimeout(total=None, connect=self.connect, sock_read=self.first_byte)


class Response:
    """An answer whose body is still arriving: `status`, lower-case `headers`, an iterator of chunks."""

    def __init__(self, response: aiohttp.ClientResponse, timeouts: Timeouts) -> None:
        self._response = response
        self._timeouts = timeouts
        self._received = 0
        self.status = response.status

    @property
    def headers(self) -> dict[str, str]:
        """By lower-case name."""
        return {name.lower(): value for name, value in self._response.headers.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        """The connection is closed unless the answer was read to its end."""
        self._response.close()

    def __aiter__(self) -> "Response":
        return self

    async def __anext__(self) -> bytes:
        """The bytes that have arrived. Raises OutboundError when the peer breaks off or sends too much."""
        content = self._response.content
        with _OUTBOUND_ERRORS:
            chunk = content.read_nowait()  # mostly there already, and then no clock is needed
            if not chunk and not content.at_eof():
                async with asyncio.timeout(
                    self._timeouts.between_bytes if self._received else self._timeouts.first_byte
                ):
                    chunk = await content.readany()
        if not chunk:
            raise StopAsyncIteration
        self._received += len(chunk)
        if self._received > MAX_STREAM_BYTES:
            raise OutboundError("the answer is too large")
        return chunk

    async def read_limited(self, limit: int) -> bytes:
        """At most the first `limit` bytes of the body; the rest is not read."""
        body = bytearray()
        async for chunk in self:
            body += chunk
            if len(body) >= limit:
                break
        return bytes(body[:limit])


class Client:
    """Sends requests; made by `open_client`."""

    def __init__(self, session: aiohttp.ClientSession, timeouts: Timeouts) -> None:
        self._session = session
        self._timeouts = timeouts

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts | None = None
    ) -> Response:
        """POST `body`; the answer, of whatever status, once its headers have come. To be used in a `with`.

        Raises OutboundError.
        """
        return await self.send("POST", url, headers, body, timeouts)

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts | None = None
    ) -> Response:
        """The same with another method."""
        timeouts = timeouts or self._timeouts
        payload = io.BytesIO(body) if len(body) > LARGE_BODY_BYTES else body
        with _OUTBOUND_ERRORS:
            response = await self._session.request(
                method, url, headers=headers, data=payload, allow_redirects=False, timeout=timeouts.of_session
            )
        return Response(response, timeouts)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


def open_client(timeouts: Timeouts | None = None, connector: aiohttp.BaseConnector | None = None) -> Client:
    """A client for the running event loop. A guarded `connector` limits where it may connect."""
    session = aiohttp.ClientSession(
        connector=connector or aiohttp.TCPConnector(limit=0, limit_per_host=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"accept-encoding": "identity", "user-agent": "qlaud-actors"},
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        trust_env=False,
    )
    return Client(session, timeouts or Timeouts())


class _OutboundErrors:
    """Names only the kind of what went wrong: aiohttp's own messages may quote what was sent."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            raise OutboundError("no connection in time") from error
        if isinstance(error, TimeoutError):
            raise OutboundTimeoutError("no answer in time") from error
        if isinstance(error, aiohttp.ClientError | OSError):
            raise OutboundError(type(error).__name__) from error


_OUTBOUND_ERRORS = _OutboundErrors()
