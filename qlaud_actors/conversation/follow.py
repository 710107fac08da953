"""Follow a turn to its end, whatever happens on the way.

Events come live over Redis. When Redis is away, its log is gone, or the last events were lost with
their worker, the rest comes from Postgres. A follower never starts anything: it only looks.
"""

import asyncio
from collections.abc import AsyncIterator

import msgspec
from redis.exceptions import RedisError

from qlaud_actors.conversation import events, store
from qlaud_actors.conversation.approvals import awaited_approvals
from qlaud_actors.conversation.bus import LogGap, Subscription
from qlaud_actors.conversation.events import APPROVAL_PREFIX, DONE_PREFIX, Event
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
    told: set[str] = set()
    try:
        async for entry in _live(pool, reader, silence, told):
            yield entry
            if entry is not None and entry.data.startswith(DONE_PREFIX):
                return
    except LogGap:
        async for entry in _wait_in_postgres(pool, reader, silence, told):
            yield entry
    for event in await _rest(pool, reader):
        yield Entry(0, events.encode(event))


async def _live(
    pool: Pool, reader: Subscription, silence: float, told: set[str]
) -> AsyncIterator[Entry | None]:
    """Events as they come; ends early when the turn is finished and silent.

    `told` are the approvals that this reader has heard of: those of a parked turn are told from Postgres
    where the log does not have them any more.
    """
    wait, quiet = min(FIRST_SECONDS, silence), 0.0
    while True:
        try:
            entries = await reader.next(wait)
        except (RedisError, OSError):
            await asyncio.sleep(wait := min(POLL_SECONDS, silence))
            entries = []
        for entry in entries:
            if entry.data.startswith(APPROVAL_PREFIX):
                told.add(msgspec.json.decode(entry.data)["tool_use_id"])
            yield entry
        if entries:
            wait, quiet = silence, 0.0
            continue
        turn = await _look(pool, reader)
        if turn and turn.finished:
            return
        for entry in await _untold(pool, turn, told):
            yield entry
        reader.reread()  # silence may also mean that the live path is dead
        quiet += wait
        if quiet >= silence:
            quiet = 0.0
            yield None
        wait = silence - quiet


async def _wait_in_postgres(
    pool: Pool, reader: Subscription, silence: float, told: set[str]
) -> AsyncIterator[Entry | None]:
    """Until the turn is finished: approvals that it waits for, and a beat every `silence` seconds."""
    quiet = 0.0
    while not ((turn := await _look(pool, reader)) and turn.finished):
        for entry in await _untold(pool, turn, told):
            yield entry
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


async def _look(pool: Pool, reader: Subscription) -> Turn | None:
    """The turn as it is now; None while Postgres is away, which says nothing about it."""
    try:
        return await _turn(pool, reader)
    except ConnectionLost:
        return None


async def _untold(pool: Pool, turn: Turn | None, told: set[str]) -> list[Entry]:
    """The approvals that a parked turn waits for and a reader has not heard of."""
    if turn is None or turn.status != "parked":
        return []
    try:
        waiting = await awaited_approvals(pool, turn.thread_id, turn.id)
    except ConnectionLost:
        return []
    fresh = [awaited for awaited in waiting if awaited.tool_use_id not in told]
    told.update(awaited.tool_use_id for awaited in fresh)
    return [Entry(0, events.encode(events.approval_required(awaited))) for awaited in fresh]


async def _turn(pool: Pool, reader: Subscription) -> Turn:
    turn = await store.get_turn(pool, reader.turn_id)
    assert turn is not None
    return turn
