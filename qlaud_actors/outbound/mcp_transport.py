"""Carries what the MCP library sends through the guarded session, within a budget of bytes.

The library speaks httpx. Underneath is this transport instead of httpx's own, so that the rules for
other people's URLs (guard.py) hold here as they do for webhooks, for every request and every redirect
that the library would follow.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
import httpx
import msgspec

from qlaud_actors.outbound.attempt import (
    CONNECT_SECONDS,
    Attempt,
    PostFailed,
    Session,
    current,
    named_failures,
)
from qlaud_actors.outbound.guard import ForbiddenURL, check_url

GOODBYE_SECONDS = 2.0
"""For telling the server that the session is over; nobody waits longer for a courtesy."""

# Ours or the connection's: httpx has its own idea of them.
_NOT_PASSED_ON = {"host", "content-length", "accept-encoding", "connection", "user-agent"}


class _Message(msgspec.Struct):
    method: str | None = None


class GuardedTransport(httpx.AsyncBaseTransport):
    """One MCP session's way out; `failure` says what went wrong, because the library hides some of it."""

    def __init__(
        self, session: Session, *, allow_private: bool, max_bytes: int, call_id: str | None = None
    ) -> None:
        self._session = session
        self._allow_private = allow_private
        self._left = max_bytes
        self._call_id = call_id
        self.call = Attempt()
        """The request that carries the tool call."""
        self.failure: str | None = None
        """Why there will be no answer, in words that name nothing that was sent."""
        self.status: int | None = None
        """What the server answered the latest message with."""
        self.over = False
        """Set when the session failed: nobody says goodbye then."""
        self.on_failure: Callable[[], None] = lambda: None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request of the library. Raises httpx.TransportError."""
        # A stream for what the server says of its own accord is not wanted; one that is resumed is.
        unasked = request.method == "GET" and "last-event-id" not in request.headers
        if unasked or (request.method == "DELETE" and self.over):
            return httpx.Response(405, request=request)
        try:
            async with asyncio.timeout(GOODBYE_SECONDS if request.method == "DELETE" else None):
                return await self._send(request)
        except TimeoutError:
            raise httpx.TransportError("no answer in time") from None
        except ForbiddenURL as error:
            raise self.fail(f"its URL {error}") from None
        except PostFailed as error:
            raise self.fail(str(error)) from None

    async def _send(self, request: httpx.Request) -> httpx.Response:
        url = check_url(str(request.url), allow_private=self._allow_private).url
        body = await request.aread()
        headers = {name: value for name, value in request.headers.items() if name not in _NOT_PASSED_ON}
        attempt = Attempt()
        if _method(body) == "tools/call":
            attempt = self.call
            if self._call_id:
                headers["idempotency-key"] = self._call_id
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS)
        token = current.set(attempt)
        try:
            with named_failures():
                response = await self._session.request(
                    request.method, url, data=body, headers=headers, allow_redirects=False, timeout=timeout
                )
        finally:
            current.reset(token)
        if request.method == "POST":
            self.status = response.status
        # The body is decoded here already.
        told = {name: value for name, value in response.headers.items() if name.lower() != "content-encoding"}
        return httpx.Response(response.status, headers=told, stream=_Body(self, response), request=request)

    def spend(self, size: int) -> None:
        """Count what has arrived. Raises httpx.TransportError when it is too much."""
        self._left -= size
        if self._left < 0:
            raise self.fail("its answer is too large")

    def fail(self, words: str) -> httpx.TransportError:
        """Note a failure, wake who waits for an answer, and give the error to raise. The first one counts."""
        if self.failure is None:
            self.failure = words
            self.on_failure()
        return httpx.TransportError(words)


class _Body(httpx.AsyncByteStream):
    """An answer as it arrives. Leaving it early closes the connection."""

    def __init__(self, transport: GuardedTransport, response: aiohttp.ClientResponse) -> None:
        self._transport = transport
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        is_stream = self._response.content_type == "text/event-stream"
        resumable = False
        try:
            with named_failures():
                async for chunk in self._response.content.iter_any():
                    self._transport.spend(len(chunk))
                    resumable = resumable or b"id:" in chunk
                    yield chunk
        except PostFailed as error:
            if not resumable:
                raise self._transport.fail(str(error)) from None
            raise httpx.TransportError(str(error)) from None
        if is_stream and not resumable:
            # The library leaves a stream at the answer; at its end there was none, and it would wait on.
            self._transport.fail("its stream ended without an answer")

    async def aclose(self) -> None:
        """Let go of the connection."""
        self._response.close()


def _method(body: bytes) -> str | None:
    """The method of a JSON-RPC message."""
    try:
        return msgspec.json.decode(body, type=_Message).method
    except msgspec.MsgspecError:
        return None
