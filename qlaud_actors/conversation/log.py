"""Where a turn's events live in Redis, and how they are read back.

Per turn a stream is the log: entry `1-<seq>` holds event number `seq`, so a range of the log is a
range of the stream. The same script that appends also publishes, which is the live path.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeAlias

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import NoScriptError

TTL_SECONDS = 6 * 3600
MAX_ENTRIES = 50_000
AFTER_LOSS = 1_000_000
"""A new owner that finds no log begins this far on: beyond whatever a client may have seen."""

NO_MORE = 2**40
"""Later than any epoch: nobody writes to this log."""

FORGOTTEN_SECONDS = 24 * 3600
FORGOTTEN_AT_ONCE = 500

APPEND = files("qlaud_actors.conversation").joinpath("append.lua").read_text()
TAKE = files("qlaud_actors.conversation").joinpath("take_log.lua").read_text()


@dataclass(frozen=True, slots=True)
class Entry:
    """One encoded event with its place in the turn's log."""

    seq: int
    data: bytes


Batch: TypeAlias = tuple[uuid.UUID, int, list[Entry]]
"""A turn, the epoch that writes, and its entries."""


def log_key(turn_id: uuid.UUID) -> str:
    """The stream; the braces keep all keys of a turn in one cluster slot."""
    return f"qlaud:turn:{{{turn_id}}}:log"


def epoch_key(turn_id: uuid.UUID) -> str:
    """The highest epoch that has written."""
    return f"qlaud:turn:{{{turn_id}}}:epoch"


def channel(turn_id: uuid.UUID) -> str:
    """The live channel."""
    return f"qlaud:turn:{{{turn_id}}}"


def decode_live(payload: bytes) -> Entry:
    """An entry from the live channel: `<seq> <json>`."""
    seq, data = payload.split(b" ", 1)
    return Entry(int(seq), data)


async def read_log(redis: Redis, turn_id: uuid.UUID, after: int, limit: int = 1000) -> list[Entry]:
    """Entries with `seq > after`, in order."""
    rows: Any = await redis.xrange(log_key(turn_id), min=f"(1-{after}", max="+", count=limit)
    return [Entry(int(key.split(b"-")[1]), fields[b"e"]) for key, fields in rows]


async def take_log(redis: Redis, turn_id: uuid.UUID, epoch: int) -> int:
    """Fence older epochs off and give the seq of the newest entry; 0 when there is no log."""
    keys = (log_key(turn_id), epoch_key(turn_id))
    return int(await redis.eval(TAKE, 2, *keys, str(epoch), str(TTL_SECONDS)))


class Appender:
    """Sends batches of many turns in one round trip."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._sha: str | None = None

    async def append(self, batches: Sequence[Batch]) -> list[bool | None]:
        """Append to many turns; per turn True, False when a newer epoch owns the log, None when it failed.

        Raises RedisError when Redis did not answer; then any of them may or may not have been written,
        and all may be sent again.
        """
        if self._sha is None:
            self._sha = await self._redis.script_load(APPEND)
        answers = await self._send(batches, self._sha)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            self._sha = None  # Redis was emptied or restarted
            return await self.append(batches)
        return [None if isinstance(answer, Exception) else bool(answer) for answer in answers]

    async def _send(self, batches: Sequence[Batch], sha: str) -> list[Any]:
        pipe: Pipeline = self._redis.pipeline(transaction=False)
        for turn_id, epoch, entries in batches:
            arguments: list[str | bytes | int] = [epoch, TTL_SECONDS, MAX_ENTRIES, channel(turn_id)]
            for entry in entries:
                arguments += (entry.seq, entry.data)
            pipe.evalsha(sha, 2, log_key(turn_id), epoch_key(turn_id), *arguments)
        return list(await pipe.execute(raise_on_error=False))


async def forget(redis: Redis, turn_ids: Sequence[uuid.UUID]) -> None:
    """Remove the logs of turns for good: whoever still has events of one is refused, as an older owner is."""
    for first in range(0, len(turn_ids), FORGOTTEN_AT_ONCE):
        pipe: Pipeline = redis.pipeline(transaction=False)
        for turn_id in turn_ids[first : first + FORGOTTEN_AT_ONCE]:
            pipe.set(epoch_key(turn_id), NO_MORE, ex=FORGOTTEN_SECONDS)
            pipe.unlink(log_key(turn_id))
        await pipe.execute()
