"""The front door's side of the bus: one subscriber connection, any number of followers.

A follower subscribes first, then reads the log after the last event it has, then goes live; it drops
what it has seen, and a hole makes it read the log again. So the live path may lose or repeat
messages without a client noticing. A slow client gets no queue without end: past a bound its live
messages are dropped and it reads the log at its own speed.
"""

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from qlaud_actors.conversation import log
from qlaud_actors.conversation.log import Entry
from qlaud_actors.log import get_logger

QUEUE_LIMIT = 1000
RECONNECT_SECONDS = 0.5
SUBSCRIBE_SECONDS = 5

logger = get_logger(__name__)


class LogGap(Exception):
    """The log no longer holds what comes next; read the turn from Postgres."""


class Subscription:
    """One reader of one turn's events."""

    def __init__(self, redis: Redis, turn_id: uuid.UUID, after: int) -> None:
        self.turn_id = turn_id
        self.last = after
        self._redis = redis
        self._queue: deque[Entry] = deque()
        self._read_log = True
        self._wake = asyncio.Event()
        self.subscribed = asyncio.Event()

    def deliver(self, entry: Entry) -> None:
        """A live entry; never blocks the connection that all readers share."""
        if len(self._queue) >= QUEUE_LIMIT:
            self._queue.clear()
            self._read_log = True
        if not self._read_log:
            self._queue.append(entry)
        self._wake.set()

    def reread(self) -> None:
        """Live entries may have been lost: look into the log again."""
        self._queue.clear()
        self._read_log = True
        self._wake.set()

    async def next(self, wait: float) -> list[Entry]:
        """New entries in order; an empty list when none came in `wait` seconds.

        Raises LogGap when entries are missing for good, RedisError when Redis is away.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                while True:
                    if entries := await self._take():
                        return entries
                    await self._wake.wait()
        return []

    async def _take(self) -> list[Entry]:
        self._wake.clear()
        if self._read_log:
            return await self._from_log()
        entries: list[Entry] = []
        while self._queue:
            entry = self._queue[0]
            if entry.seq > self.last + 1:
                return entries or await self._from_log()
            self._queue.popleft()
            if entry.seq == self.last + 1:
                self.last = entry.seq
                entries.append(entry)
        return entries

    async def _from_log(self) -> list[Entry]:
        """The log after the last entry. What arrives live meanwhile is found there or on the queue."""
        self._read_log = False
        try:
            entries = await log.read_log(self._redis, self.turn_id, self.last)
        except BaseException:
            self._read_log = True
            raise
        if entries:
            if entries[0].seq != self.last + 1:
                raise LogGap
            self._read_log = len(entries) >= QUEUE_LIMIT
            self.last = entries[-1].seq
        elif self._queue and self._queue[0].seq > self.last + 1:
            raise LogGap
        return entries


class Bus:
    """The process's one subscriber connection."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._pubsub = redis.pubsub(ignore_subscribe_messages=False)
        self._readers: dict[bytes, set[Subscription]] = {}
        self._task: asyncio.Task[None] | None = None
        self._first = asyncio.Event()
        self._commands = asyncio.Lock()

    async def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.create_task(self._listen_forever(), name="bus")

    async def close(self) -> None:
        """Stop listening."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(RedisError):
            await self._pubsub.aclose()  # type: ignore[no-untyped-call]

    @contextlib.asynccontextmanager
    async def follow(self, turn_id: uuid.UUID, after: int = 0) -> AsyncIterator[Subscription]:
        """Follow a turn from behind event `after`. Works, slowly, without Redis too: see `relay`."""
        name = log.channel(turn_id).encode()
        reader = Subscription(self._redis, turn_id, after)
        readers = self._readers.setdefault(name, set())
        readers.add(reader)
        try:
            await self._subscribe(name, reader)
            yield reader
        finally:
            readers.discard(reader)
            if not readers:
                await self._unsubscribe(name)

    async def _subscribe(self, name: bytes, reader: Subscription) -> None:
        """Ask for the channel and wait for the word that it is ours; the log is read only after."""
        try:
            async with asyncio.timeout(SUBSCRIBE_SECONDS):
                async with self._commands:
                    await self._pubsub.subscribe(name)
                self._first.set()
                await reader.subscribed.wait()
        except (RedisError, OSError, TimeoutError) as error:
            logger.warning("subscribe_failed", error=type(error).__name__)

    async def _unsubscribe(self, name: bytes) -> None:
        """Leave a channel, unless somebody came to follow it meanwhile."""
        with contextlib.suppress(RedisError, OSError):
            async with self._commands:
                if not self._readers.get(name):
                    self._readers.pop(name, None)
                    await self._pubsub.unsubscribe(name)

    async def _listen_forever(self) -> None:
        while True:
            await self._first.wait()
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 - the process's one listener must go on
                logger.warning("bus_lost", error=type(error).__name__)
                await self._resubscribe()

    async def _listen(self) -> None:
        while True:
            if not self._pubsub.subscribed:
                self._first.clear()
                return
            message = await self._pubsub.get_message(timeout=60)
            if message is not None:
                self._dispatch(message)

    def _dispatch(self, message: dict[str, Any]) -> None:
        readers = self._readers.get(message["channel"], ())
        if message["type"] == "subscribe":
            for reader in readers:
                # The word comes again after a reconnect: entries in between are only in the log.
                reader.subscribed.set()
                reader.reread()
        elif message["type"] == "message":
            entry = log.decode_live(message["data"])
            for reader in readers:
                reader.deliver(entry)

    async def _resubscribe(self) -> None:
        """After a broken connection: subscribe again to every channel that is followed, until it works."""
        while True:
            await asyncio.sleep(RECONNECT_SECONDS)
            async with self._commands:
                with contextlib.suppress(RedisError, OSError):
                    await self._pubsub.aclose()  # type: ignore[no-untyped-call]
                self._pubsub = self._redis.pubsub(ignore_subscribe_messages=False)
                try:
                    if self._readers:
                        await self._pubsub.subscribe(*self._readers)
                except (RedisError, OSError):
                    continue
                return
