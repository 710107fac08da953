"""The worker's side of the bus: one flusher per process carries the events of all its turns.

Deltas wait up to 25 ms or 1 kB, so that a thousand streams cost Redis little; the first piece of an
answer and every other event go out at once. Redis being away never stops a turn: events are kept
up to a bound, then dropped; a reader then gets the turn from Postgres.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from redis.asyncio import Redis
from redis.exceptions import RedisError

from qlaud_actors.conversation import log
from qlaud_actors.conversation.events import Event, encode
from qlaud_actors.conversation.log import Entry
from qlaud_actors.log import get_logger

FLUSH_SECONDS = 0.025
FLUSH_BYTES = 1024
RETRY_SECONDS = 0.5
CLOSING_SECONDS = 1.0
MAX_BUFFERED_BYTES = 4 * 1024 * 1024
MAX_BATCH_BYTES = 64 * 1024 * 1024
"""What is kept for a Redis that is away: of one turn, and of all together."""

logger = get_logger(__name__)


@dataclass(slots=True)
class TurnLog:
    """The tail of one turn's log that has not been sent, and the number of the last event."""

    turn_id: uuid.UUID
    epoch: int
    seq: int
    on_fenced: Callable[[], None]
    _publisher: "Publisher"
    _waiting: list[Entry] = field(default_factory=list)
    _text: Event | None = None
    _bytes: int = 0
    _delta_seen: bool = False

    def publish(self, event: Event) -> None:
        """Add an event; never blocks. Consecutive text of one block becomes one event."""
        is_delta = event["type"] == "content_block_delta"
        if is_delta and self._merge(event):
            return
        self._seal()
        self.seq += 1
        if is_delta and event["delta"]["type"] == "text_delta":
            # A copy: the text of later deltas is added to it.
            self._text = {**event, "delta": dict(event["delta"])}
            self._bytes += len(event["delta"]["text"])
        else:
            self._add(Entry(self.seq, encode(event)))
        urgent = not (is_delta and self._delta_seen) or self._bytes >= FLUSH_BYTES
        self._delta_seen = is_delta
        self._publisher.wake(self, urgent=urgent)

    def take(self) -> list[Entry]:
        """Everything that waits, for sending."""
        self._seal()
        taken, self._waiting, self._bytes = self._waiting, [], 0
        return taken

    def put_back(self, entries: list[Entry]) -> None:
        """Keep what could not be sent, up to a bound."""
        size = sum(len(entry.data) for entry in entries)
        if self._bytes + size <= MAX_BUFFERED_BYTES:
            self._waiting[:0] = entries
            self._bytes += size

    def _merge(self, event: Event) -> bool:
        if self._text is None or self._text["index"] != event["index"]:
            return False
        if event["delta"]["type"] != "text_delta":
            return False
        self._text["delta"]["text"] += event["delta"]["text"]
        self._bytes += len(event["delta"]["text"])
        self._publisher.wake(self, urgent=self._bytes >= FLUSH_BYTES)
        return True

    def _seal(self) -> None:
        if self._text is not None:
            self._waiting.append(Entry(self.seq, encode(self._text)))
            self._text = None

    def _add(self, entry: Entry) -> None:
        self._waiting.append(entry)
        self._bytes += len(entry.data)


class Publisher:
    """The process's one flusher."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._appender = log.Appender(redis)
        self._dirty: dict[uuid.UUID, TurnLog] = {}
        self._urgent = asyncio.Event()
        self._some = asyncio.Event()
        self._sending = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to flush."""
        self._task = asyncio.create_task(self._flush_forever(), name="publisher")

    async def close(self) -> None:
        """Send what waits and stop."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.flush()

    async def open(
        self, turn_id: uuid.UUID, epoch: int, saved_seq: int, on_fenced: Callable[[], None]
    ) -> TurnLog:
        """The log of a turn that was just claimed.

        `saved_seq` is where the log stood at the last saved step. `on_fenced` is called when a newer
        owner turns out to have written.
        """
        seq = saved_seq
        if epoch > 1:
            try:
                last = await log.take_log(self._redis, turn_id, epoch)
            except (RedisError, OSError):
                last = 0
            seq = last or saved_seq + log.AFTER_LOSS
        return TurnLog(turn_id, epoch, seq, on_fenced, self)

    def wake(self, turn_log: TurnLog, *, urgent: bool) -> None:
        """A turn has something to send: soon, or now."""
        self._dirty[turn_log.turn_id] = turn_log
        self._some.set()
        if urgent:
            self._urgent.set()

    async def flush(self) -> bool:
        """Send everything that waits now; whether Redis took it.

        One batch at a time keeps the order. Shielded: whoever waits may be cancelled, but the batch
        belongs to all turns of the process.
        """
        return await asyncio.shield(self._flush_in_turn())

    async def flush_soon(self) -> None:
        """Give Redis a moment to take what waits; a hung one must not keep a turn from ending."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.flush(), CLOSING_SECONDS)

    async def _flush_in_turn(self) -> bool:
        async with self._sending:
            return await self._flush()

    async def _flush_forever(self) -> None:
        while True:
            await self._some.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._urgent.wait(), FLUSH_SECONDS)
            if not await self.flush():
                await asyncio.sleep(RETRY_SECONDS)

    async def _flush(self) -> bool:
        self._some.clear()
        self._urgent.clear()
        logs, self._dirty = list(self._dirty.values()), {}
        taken = [(turn_log, entries) for turn_log in logs if (entries := turn_log.take())]
        if not taken:
            return True
        answers: Sequence[bool | None]
        try:
            answers = await self._appender.append([(t.turn_id, t.epoch, entries) for t, entries in taken])
        except Exception as error:  # noqa: BLE001 - the process's one flusher must go on
            logger.warning("events_not_sent", turns=len(taken), error=type(error).__name__)
            answers = [None] * len(taken)
        failed = [pair for pair, answer in zip(taken, answers, strict=True) if answer is None]
        for (turn_log, _), answer in zip(taken, answers, strict=True):
            if answer is False:
                turn_log.on_fenced()
        self._keep(failed)
        return not failed

    def _keep(self, failed: list[tuple[TurnLog, list[Entry]]]) -> None:
        """Send these again later, unless it is too much: readers then get the turns from Postgres."""
        if sum(len(entry.data) for _, entries in failed for entry in entries) > MAX_BATCH_BYTES:
            return
        for turn_log, entries in failed:
            turn_log.put_back(entries)
            self.wake(turn_log, urgent=False)
