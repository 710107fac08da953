"""HTTP/1.1 on one connection at a time: a request is written, its answer is parsed as it comes.

The relay's time goes into its client more than into anything else, so this is one layer over the socket:
httptools (llhttp) parses, an `Answer` holds what has come, and nothing else stands in between. One request
is on a connection at a time; it is kept for the next one only when an answer has ended as it should.
"""

import asyncio
import zlib
from collections import deque
from typing import Any, Protocol, cast

import httptools

MAX_HEAD_BYTES = 64 * 1024
"""Status line and headers of an answer."""

MAX_WAITING_BYTES = 512 * 1024
"""Of an answer that its reader has not taken; then the peer is read no further."""

MAX_UNPACKED_BYTES = 16 * 1024 * 1024
"""What the pieces of a compressed answer that wait may hold."""


class BrokenOff(Exception):
    """The peer went away or does not speak HTTP; the message names the kind and nothing that was sent."""


class Answer:
    """What has come of one answer. Its reader waits with `head` and `more`."""

    def __init__(self, connection: "Connection") -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """By lower-case name; of one that is repeated, all values with commas."""
        self.ended = False
        """The last byte has come."""
        self.broken: BrokenOff | None = None
        self._connection = connection
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._packed = False
        self._unpack: Any = None
        """From the first packed byte on."""
        self._waiter: asyncio.Future[None] | None = None

    async def head(self, seconds: float) -> None:
        """Wait for status and headers. Raises BrokenOff, TimeoutError."""
        while not self.status:
            await self._wait(seconds)

    async def more(self, seconds: float) -> bytes:
        """The bytes that have come, or the next ones; none at the end. Raises BrokenOff, TimeoutError."""
        while not self._pieces:
            if self.ended:
                return b""
            await self._wait(seconds)
        pieces, self._size = self._pieces, 0
        taken = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if not self.ended:
            self._connection.resume()
        return taken

    def leave(self) -> None:
        """Nothing more is read: the connection is closed unless the answer has ended."""
        if not self.ended:
            self._connection.abort()

    def begin(self, status: int) -> None:
        """The head is complete. Raises BrokenOff for an encoding that was not asked for."""
        packed = self.headers.get("content-encoding", "identity").lower()
        if packed in ("gzip", "x-gzip", "deflate"):
            self._packed = True
        elif packed != "identity":
            raise BrokenOff("the answer has an unknown encoding")
        self.status = status
        self._wake()

    def add(self, piece: bytes) -> bool:
        """More of the body; whether its reader is far behind. Raises BrokenOff."""
        if self._packed:
            piece = self._unpacked(piece)
        if not piece:
            return False  # a packed one may begin with nothing; for the reader that would be the end
        self._pieces.append(piece)
        self._size += len(piece)
        self._wake()
        return self._size > MAX_WAITING_BYTES

    def end(self, broken: BrokenOff | None = None) -> None:
        """It is complete, or never will be."""
        if broken is None and self._unpack is not None and not self._unpack.eof:
            broken = BrokenOff("the answer cannot be unpacked")
        if broken is None:
            self.ended = True
        else:
            self.broken = broken
        self._wake()

    def _unpacked(self, piece: bytes) -> bytes:
        """What a packed piece holds, within what may wait for the reader."""
        if self._unpack is None:
            self._unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either kind, by its first bytes
        room = MAX_UNPACKED_BYTES - self._size
        try:
            unpacked: bytes = self._unpack.decompress(piece, max(room, 1))
        except zlib.error:
            raise BrokenOff("the answer cannot be unpacked") from None
        if self._unpack.unconsumed_tail:
            raise BrokenOff("the answer is too large")
        return unpacked

    async def _wait(self, seconds: float) -> None:
        if self.broken is not None:
            raise self.broken
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = loop.call_later(seconds, _too_late, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _too_late(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


class Owner(Protocol):
    """Who keeps connections."""

    def free(self, connection: "Connection") -> None:
        """This one may carry another request."""

    def gone(self, connection: "Connection") -> None:
        """This one is closed."""


class Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self, owner: Owner) -> None:
        self.free_since = 0.0
        """By the loop's clock; its owner's note."""
        self._owner = owner
        self._answer: Answer | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._head_bytes = 0
        self._ends_with_connection = False
        self._paused = False
        self._transport: asyncio.Transport

    @property
    def closing(self) -> bool:
        """It carries nothing any more."""
        return self._transport.is_closing()

    def send(self, request: bytes) -> Answer:
        """Write a request; its answer begins to come."""
        answer = self._answer = Answer(self)
        self._head_bytes = 0
        self._transport.write(request)
        return answer

    def abort(self) -> None:
        """End it at once."""
        self._answer = None
        self._transport.abort()

    def resume(self) -> None:
        """Its reader has caught up."""
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        """Parse what has come. Bytes that nobody asked for end the connection."""
        answer = self._answer
        if answer is None:
            self._transport.abort()
            return
        if not answer.status:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            ours = error.__context__  # what a callback raised
            self._break(answer, ours if isinstance(ours, BrokenOff) else BrokenOff("the answer is not HTTP"))
        else:
            if not answer.status and self._head_bytes > MAX_HEAD_BYTES:
                self._break(answer, BrokenOff("the headers are too large"))

    def eof_received(self) -> None:
        """The peer sends no more: where it told no length, the answer ends here."""
        if self._ends_with_connection and self._answer is not None and self._answer.status:
            self._answer.end()
            self._answer = None

    def connection_lost(self, error: Exception | None) -> None:
        """It is closed."""
        self._owner.gone(self)
        if self._answer is not None:
            kind = type(error).__name__ if error else "the connection was closed"
            self._answer.end(BrokenOff(kind))
            self._answer = None

    def on_message_begin(self) -> None:
        """One answer for each request; a second one has no reader."""
        if self._answer is None or self._answer.ended:
            raise BrokenOff("more came than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of the answer. What comes behind its body (trailers) is nobody's."""
        assert self._answer is not None
        if self._answer.status:
            return
        headers, key, said = self._answer.headers, name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {said}" if key in headers else said

    def on_headers_complete(self) -> None:
        """The head is complete; one of 1xx only announces another."""
        answer, status = self._answer, self._parser.get_status_code()
        assert answer is not None
        if status < 200:
            answer.headers.clear()
            return
        framed = "content-length" in answer.headers or "transfer-encoding" in answer.headers
        self._ends_with_connection = not framed and status not in (204, 304)
        answer.begin(status)

    def on_body(self, piece: bytes) -> None:
        """More of the body."""
        assert self._answer is not None
        if self._answer.add(piece) and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The answer has ended: the connection is free, if peer and request allow."""
        answer = self._answer
        if answer is None or not answer.status:
            return
        self._answer = None
        answer.end()
        self.resume()
        if self._parser.should_keep_alive() and not self._transport.get_write_buffer_size():
            self._owner.free(self)
        else:
            self._transport.close()

    def _break(self, answer: Answer, broken: BrokenOff) -> None:
        self._answer = None
        if not answer.ended:
            answer.end(broken)
        self._transport.abort()
