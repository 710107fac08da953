"""How the stream of a finished turn is closed, whoever finished it."""

import uuid
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from qlaud_actors import metrics
from qlaud_actors.conversation import events
from qlaud_actors.conversation.mailbox import Finished
from qlaud_actors.conversation.publisher import Publisher, TurnLog

Wake: TypeAlias = Callable[[list[uuid.UUID]], Awaitable[None]]
"""Sends wake-ups for turns."""

WakeIndex: TypeAlias = Callable[[uuid.UUID], Awaitable[None]]
"""Sends a wake-up for the messages of a thread that search lacks."""


async def close_stream(publisher: Publisher, turn_log: TurnLog, finished: Finished, wake: Wake) -> None:
    """The last events, at once; then the next turn of the thread."""
    for event in events.closing_events(finished.turn):
        turn_log.publish(event)
    await publisher.flush_soon()
    metrics.TURNS.labels(finished.turn.status).inc()
    if finished.next_turn:
        await wake([finished.next_turn])


async def announce(publisher: Publisher, finished: Finished, wake: Wake) -> None:
    """Close the stream of a turn that ended without an owner: cancelled or given up."""
    turn = finished.turn
    turn_log = await publisher.open(turn.id, turn.epoch, 0, lambda: None)
    await close_stream(publisher, turn_log, finished, wake)
