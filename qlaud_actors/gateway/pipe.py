"""Between the task that reads a provider and the handler that writes to the client.

Either side may go away: the reader's leaving never stops the writer, which owes a bill.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable

MAX_BYTES = 1024 * 1024
"""What waits for a slow client, at most; then the provider is read no faster than the client reads."""

STALL_SECONDS = 300.0
"""A client that reads nothing for so long has left."""


class Pipe:
    """One writer, one reader."""

    def __init__(self, on_leave: Callable[[], None] = lambda: None) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._error: BaseException | None = None
        self._closed = False
        self.left = False
        self._on_leave = on_leave

    async def put(self, data: bytes) -> None:
        """Pass bytes on; waits while the reader is behind, and drops them when it has left."""
        if self.left or not data:
            return
        self._chunks.append(data)
        self._size += len(data)
        self._arrived.set()
        while self._size > MAX_BYTES and not self.left:
            self._taken.clear()
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    await self._taken.wait()
            except TimeoutError:
                self.leave()

    def close(self, error: BaseException | None = None) -> None:
        """No more will come; `error` is raised to the reader behind the last byte."""
        self._closed, self._error = True, error
        self._arrived.set()

    def leave(self) -> None:
        """The reader has gone: what comes is dropped."""
        if self.left or self._closed:
            return
        self.left = True
        self._chunks.clear()
        self._taken.set()
        self._arrived.set()
        self._on_leave()

    async def read(self, silence: float) -> AsyncIterator[bytes | None]:
        """What comes, joined; None after so many seconds without anything. Raises the writer's error."""
        while True:
            if not self._chunks and not self._closed:
                self._arrived.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(silence):
                        await self._arrived.wait()
            if self._chunks:
                yield self._take()
            elif self._error is not None:
                raise self._error
            elif self._closed or self.left:
                return
            else:
                yield None

    def _take(self) -> bytes:
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        self._taken.set()
        return data
