"""The one aiohttp client session: streamed POSTs to model providers and webhooks.

It follows no redirects, reads no proxy variables and keeps no cookies, so that a request goes
where it was sent and nowhere else.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import aiohttp

MAX_HEADER_BYTES = 16 * 1024
MAX_STREAM_BYTES = 256 * 1024 * 1024
"""More than any model answers; a peer that sends without end is cut."""

LARGE_BODY_BYTES = 1024 * 1024


class OutboundError(Exception):
    """The peer could not be reached or broke off; no headers, keys or bodies are in the message."""


class OutboundTimeoutError(OutboundError):
    """The peer took the request and then was silent for too long."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. A model may think for minutes before its first byte."""

    connect: float = 10.0
    first_byte: float = 600.0
    between_bytes: float = 300.0


class Response:
    """An answer whose body is still arriving: `status`, lower-case `headers`, an iterator of chunks."""

    def __init__(self, response: aiohttp.ClientResponse, timeouts: Timeouts) -> None:
        self._response = response
        self._timeouts = timeouts
        self._received = 0
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    def __aiter__(self) -> "Response":
        return self

    async def __anext__(self) -> bytes:
        """The bytes that have arrived. Raises OutboundError when the peer breaks off or sends too much."""
        silence = self._timeouts.between_bytes if self._received else self._timeouts.first_byte
        with _outbound_errors():
            async with asyncio.timeout(silence):
                chunk = await self._response.content.readany()
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

    @asynccontextmanager
    async def stream_post(
        self, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts | None = None
    ) -> AsyncIterator[Response]:
        """POST `body` and yield the answer, of whatever status, once its headers have come.

        The connection is closed on exit unless the answer was read to its end. Raises OutboundError.
        """
        timeouts = timeouts or self._timeouts
        payload = io.BytesIO(body) if len(body) > LARGE_BODY_BYTES else body
        with _outbound_errors():
            response = await self._session.post(
                url,
                headers=headers,
                data=payload,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=timeouts.connect, sock_read=timeouts.first_byte
                ),
            )
        try:
            yield Response(response, timeouts)
        finally:
            response.close()

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


@contextmanager
def _outbound_errors() -> Iterator[None]:
    """Names only the kind of what went wrong: aiohttp's own messages may quote what was sent."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise OutboundError("no connection in time") from error
    except TimeoutError as error:
        raise OutboundTimeoutError("no answer in time") from error
    except (aiohttp.ClientError, OSError) as error:
        raise OutboundError(type(error).__name__) from error
