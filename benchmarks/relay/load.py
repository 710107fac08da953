"""Load over loopback: closed loop (so many connections, each sends when it has its answer) and open loop
(requests begin at fixed times, whether or not earlier ones have ended).
"""

import asyncio
import contextlib
import time
from collections import deque
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from benchmarks.relay.http import Inbox

OPEN_CONNECTIONS = 256
MAX_WAITING = 2_000
"""Requests of an open loop without an answer; beyond that the peer cannot keep up."""

DRAIN_SECONDS = 5.0

Meter: TypeAlias = AbstractContextManager[object]
"""Entered around the part of a run that counts."""


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds of a run: what does not count yet, and what does."""

    warm: float
    seconds: float


@dataclass(slots=True)
class Measured:
    """What a run saw: seconds per request, and answers that were no 200."""

    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    seconds: float = 0.0
    first_error: str = ""

    @property
    def rate(self) -> float:
        """Answers of 200 per second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def quantile(self, share: float) -> float:
        """Milliseconds within which this share of the requests was answered."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000 if ordered else float("nan")


class Connection(asyncio.Protocol):
    """One connection that sends one request at a time."""

    def __init__(self, request: bytes, run: "Closed | Open") -> None:
        self._request = request
        self._run = run
        self._inbox = Inbox()
        self.start = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        self._run.idle(self)

    def send(self, start: float) -> None:
        """One request, whose time counts from `start`."""
        self.start = start
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note a complete answer."""
        head = self._inbox.feed(data)
        if head is None:
            return
        body = self._inbox.take()
        self._run.note(self.start, head, body)
        self._run.idle(self)


class Run:
    """Counts from `begin` until `end`."""

    def __init__(self) -> None:
        self.measured = Measured()
        self.counting = False

    def note(self, start: float, head: bytes, body: bytes) -> None:
        """One answer."""
        if not self.counting:
            return
        if head[9:12] == b"200":
            self.measured.latencies.append(time.perf_counter() - start)
        else:
            self.measured.errors += 1
            self.measured.first_error = self.measured.first_error or (head[:15] + body[:200]).decode(
                errors="replace"
            )

    def idle(self, connection: Connection) -> None:
        """A connection is free."""
        raise NotImplementedError


class Closed(Run):
    """Each connection sends again at once."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = False

    def idle(self, connection: Connection) -> None:
        """Send the next."""
        if not self.ended:
            connection.send(time.perf_counter())


class Open(Run):
    """Requests wait for a free connection, and their waiting counts."""

    def __init__(self) -> None:
        super().__init__()
        self.free: deque[Connection] = deque()
        self.waiting: deque[float] = deque()
        self._count = 0
        self._idle = asyncio.Event()

    async def all_free(self, count: int) -> None:
        """Wait until so many connections have nothing to do."""
        self._count, self._idle = count, asyncio.Event()
        if len(self.free) < count:
            await self._idle.wait()

    def arrive(self, start: float) -> None:
        """A request begins."""
        if self.free:
            self.free.pop().send(start)
        elif len(self.waiting) < MAX_WAITING:
            self.waiting.append(start)
        else:
            self.measured.errors += 1
            self.measured.first_error = "it cannot keep up"

    def idle(self, connection: Connection) -> None:
        """Serve who waits longest."""
        if self.waiting:
            connection.send(self.waiting.popleft())
        else:
            self.free.append(connection)
            if len(self.free) == self._count:
                self._idle.set()


async def connect(port: int, request: bytes, run: Closed | Open, count: int) -> list[Connection]:
    """So many connections to a port of this machine."""
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_connection(lambda: Connection(request, run), "127.0.0.1", port)
        for _ in range(count)
    ]
    return [connection for _, connection in opened]


class Window:
    """The measured part of a run."""

    def __init__(self, run: Closed | Open) -> None:
        self._run = run

    async def __aenter__(self) -> None:
        self._start = time.perf_counter()
        self._run.counting = True

    async def __aexit__(self, *failure: object) -> None:
        self._run.counting = False
        self._run.measured.seconds = time.perf_counter() - self._start


async def closed_loop(port: int, request: bytes, connections: int, span: Span, meter: Meter) -> Measured:
    """As many requests as so many connections can make; `meter` is entered around what counts."""
    run = Closed()
    opened = await connect(port, request, run, connections)
    await asyncio.sleep(span.warm)
    with meter:
        async with Window(run):
            await asyncio.sleep(span.seconds)
    run.ended = True
    await asyncio.sleep(0.1)
    for connection in opened:
        connection.transport.close()
    return run.measured


async def open_loop(port: int, request: bytes, rate: int, span: Span, meter: Meter) -> Measured:
    """So many requests per second, evenly spaced, whatever becomes of them."""
    run = Open()
    opened = await connect(port, request, run, OPEN_CONNECTIONS)
    await _arrivals(run, rate, span.warm)
    with meter:
        async with Window(run):
            await _arrivals(run, rate, span.seconds)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    await run.all_free(len(opened))
    run.measured.errors += len(opened) - len(run.free)
    for connection in opened:
        connection.transport.close()
    return run.measured


async def _arrivals(run: Open, rate: int, seconds: float) -> None:
    begin, count = time.perf_counter(), int(rate * seconds)
    for number in range(count):
        due = begin + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        run.arrive(due)
