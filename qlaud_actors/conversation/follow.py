"""Follow a turn to its end, whatever happens on the way.

Events come live over Redis. When Redis is away, its log is gone, or the last events were lost with
their worker, the rest comes from Postgres. A follower never starts anything: it only looks.
"""

import asyncio
from collections.abc import AsyncIterator

from redis.exceptions import RedisError

from qlaud_actors.conversation import events, store
from qlaud_actors.conversation.bus import LogGap, Subscription
from qlaud_actors.conversation.events import DONE_PREFIX, Event
from qlaud_actors.conversation.log import Entry
from qlaud_actors.conversation.model import Turn
from qlaud_actors.conversation.snapshot import load_record, record_events
from qlaud_actors.db.pool import ConnectionLost, Pool

FIRST_SECONDS = 0.25
"""How soon Postgres is asked about a turn that has no log: it may have ended long ago."""

POLL_SECONDS = 1.0


async def follow_turn(pool: Pool, reader: Subscription, silence: float) -> AsyncIterator[Entry | None]:
    """The events of a turn up to `qlaud.done`; None after each `silence` seconds without any.

    Entries told from Postgres have seq 0: they are not in the log, so no stream resumes from them.
    """
    try:
        async for entry in _live(pool, reader, silence):
            yield entry
            if entry is not None and entry.data.startswith(DONE_PREFIX):
                return
    except LogGap:
        async for beat in _wait_in_postgres(pool, reader, silence):
            yield beat
    for event in await _rest(pool, reader):
        yield Entry(0, events.encode(event))


async def _live(pool: Pool, reader: Subscription, silence: float) -> AsyncIterator[Entry | None]:
    """Events as they come; ends early when the turn is finished and silent."""
    wait, quiet = min(FIRST_SECONDS, silence), 0.0
    while True:
        try:
            entries = await reader.next(wait)
        except (RedisError, OSError):
            await asyncio.sleep(wait := min(POLL_SECONDS, silence))
            entries = []
        for entry in entries:
            yield entry
        if entries:
            wait, quiet = silence, 0.0
            continue
        if await _finished(pool, reader):
            return
        reader.reread()  # silence may also mean that the live path is dead
        quiet += wait
        if quiet >= silence:
            quiet = 0.0
            yield None
        wait = silence - quiet


async def _wait_in_postgres(pool: Pool, reader: Subscription, silence: float) -> AsyncIterator[None]:
    """Until the turn is finished, a beat every `silence` seconds."""
    quiet = 0.0
    while not await _finished(pool, reader):
        await asyncio.sleep(min(POLL_SECONDS, silence))
        quiet += POLL_SECONDS
        if quiet >= silence:
            quiet = 0.0
            yield None


async def _rest(pool: Pool, reader: Subscription) -> list[Event]:
    """What a reader of a finished turn still has to be told."""
    record = await load_record(pool, await _turn(pool, reader))
    if reader.last and reader.last >= record.saved_seq:
        return events.closing_events(record.turn)
    told = record_events(record)
    return [events.rewind(0), *told] if reader.last else told


async def _finished(pool: Pool, reader: Subscription) -> bool:
    """Whether the turn has ended; Postgres being away says nothing about it."""
    try:
        return (await _turn(pool, reader)).finished
    except ConnectionLost:
        return False


async def _turn(pool: Pool, reader: Subscription) -> Turn:
    turn = await store.get_turn(pool, reader.turn_id)
    assert turn is not None
    return turn
