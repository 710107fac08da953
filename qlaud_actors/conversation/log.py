"""Where a turn's events live in Redis, and how they are read back.

Per turn a stream is the log: entry `1-<seq>` holds event number `seq`, so a range of the log is a
range of the stream. The same script that appends also publishes, which is the live path.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import NoScriptError

TTL_SECONDS = 6 * 3600
MAX_ENTRIES = 50_000
AFTER_LOSS = 1_000_000
"""A new owner that finds no log begins this far on: beyond whatever a client may have seen."""

APPEND = files("qlaud_actors.conversation").joinpath("append.lua").read_text()


@dataclass(frozen=True, slots=True)
class Entry:
    """One encoded event with its place in the turn's log."""

    seq: int
    data: bytes


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


async def last_seq(redis: Redis, turn_id: uuid.UUID) -> int | None:
    """The seq of the newest entry; None when there is no log."""
    rows: Any = await redis.xrevrange(log_key(turn_id), count=1)
    return int(rows[0][0].split(b"-")[1]) if rows else None


class Appender:
    """Sends batches of many turns in one round trip."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._sha: str | None = None

    async def append(self, batches: Sequence[tuple[uuid.UUID, int, list[Entry]]]) -> list[bool]:
        """Append (turn, epoch, entries); per turn whether this epoch may still write."""
        if self._sha is None:
            self._sha = await self._redis.script_load(APPEND)
        try:
            return await self._send(batches, self._sha)
        except NoScriptError:  # Redis was emptied or restarted
            self._sha = None
            return await self.append(batches)

    async def _send(self, batches: Sequence[tuple[uuid.UUID, int, list[Entry]]], sha: str) -> list[bool]:
        pipe: Pipeline = self._redis.pipeline(transaction=False)
        for turn_id, epoch, entries in batches:
            arguments: list[str | bytes | int] = [epoch, TTL_SECONDS, MAX_ENTRIES, channel(turn_id)]
            for entry in entries:
                arguments += (entry.seq, entry.data)
            pipe.evalsha(sha, 2, log_key(turn_id), epoch_key(turn_id), *arguments)
        return [bool(answer) for answer in await pipe.execute()]
