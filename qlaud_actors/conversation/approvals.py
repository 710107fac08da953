"""Calls that wait for a person's word: asked for by a worker, decided at a front door, expired by the sweep.

Asking is three steps: the calls wait in Postgres, clients are told, the turn is parked. A decision that
comes between the last two finds a turn that still runs; parking then finds nothing to wait for. A worker
that dies between them has its turn taken over, and clients are told again behind a rewind.
"""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from qlaud_actors.conversation import events, store
from qlaud_actors.conversation.approval_rules import (
    EXPIRED,
    Awaited,
    Decision,
    calls_to_ask,
    declined,
    must_record,
)
from qlaud_actors.conversation.journal import fenced
from qlaud_actors.conversation.model import Progress, Turn
from qlaud_actors.conversation.publisher import TurnLog
from qlaud_actors.conversation.store import QUERIES
from qlaud_actors.db.pool import Connection, Pool, Rows
from qlaud_actors.errors import NotFound, TurnCancelled
from qlaud_actors.tools.model import ToolCall, Toolset


@dataclass(frozen=True, slots=True)
class TurnApprovals:
    """The approvals of one owned turn (`loop.Approvals`)."""

    pool: Pool
    turn: Turn
    toolset: Toolset
    turn_log: TurnLog
    flush: Callable[[], Awaitable[None]]

    async def park(self, progress: Progress) -> bool:
        """Ask for what has to be approved; True when the turn is parked, so that it is not ours any more."""
        asked = calls_to_ask(self.turn.request.approval, progress.pending, self.toolset)
        waiting = await self._ask(asked) if asked else []
        if not waiting:
            return False
        for awaited in waiting:
            self.turn_log.publish(events.approval_required(awaited))
        await self.flush()
        return await self._park()

    async def _ask(self, calls: list[ToolCall]) -> list[Awaited]:
        seconds = float(self.turn.request.approval_timeout_s)
        async with fenced(self.pool, self.turn) as connection:
            await connection.execute(QUERIES.ask_approvals, [call.id for call in calls], seconds)
            return await awaited_approvals(connection, self.turn.thread_id, self.turn.id)

    async def _park(self) -> bool:
        async with fenced(self.pool, self.turn) as connection:
            if await connection.fetchval(QUERIES.park_turn, self.turn.id, self.turn_log.seq):
                return True
            turn = await store.get_turn(connection, self.turn.id)
            if turn is not None and turn.cancel_requested:
                raise TurnCancelled
            return False


async def awaited_approvals(
    rows: Rows, thread_id: uuid.UUID, turn_id: uuid.UUID | None = None
) -> list[Awaited]:
    """What waits for a person's word in a thread, or in one of its turns."""
    found = await rows.fetch(QUERIES.awaited_approvals, thread_id, turn_id)
    return [Awaited(**dict(row)) for row in found]


async def decide(
    pool: Pool, thread_id: uuid.UUID, tool_use_id: str, decision: Decision
) -> tuple[uuid.UUID, bool]:
    """Record a person's word, once: the turn, and whether it is to be woken now.

    Raises NotFound (nobody was asked), Conflict (decided otherwise, too late).
    """
    async with pool.acquire() as connection, connection.transaction():
        asked = await connection.fetchrow(QUERIES.asked_call, thread_id, tool_use_id)
        if asked is None:
            raise NotFound("No call of this thread waits for this approval.")
        call_id, turn_id = asked["id"], asked["turn_id"]
        await connection.execute(QUERIES.lock_turn_of_call, turn_id)
        call = await connection.fetchrow(QUERIES.approval_state, call_id)
        assert call is not None
        if must_record(decision, call["state"], call["approved"], expired=call["expired"]):
            await _record(connection, call_id, decision)
        return turn_id, await _resume(connection, turn_id)


async def _record(connection: Connection, call_id: str, decision: Decision) -> None:
    if decision.approve:
        await connection.execute(QUERIES.approve_call, call_id, decision.key_id)
    else:
        words = declined(decision.reason)
        await connection.execute(QUERIES.decline_call, call_id, decision.key_id, words)


async def expire(pool: Pool) -> list[uuid.UUID]:
    """Decline what nobody decided about in time; the turns to wake. Safe to run in every worker at once."""
    return [
        row["turn_id"]
        for row in await pool.fetch(QUERIES.expired_turns)
        if await _expire_one(pool, row["turn_id"])
    ]


async def _expire_one(pool: Pool, turn_id: uuid.UUID) -> bool:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(QUERIES.lock_turn_of_call, turn_id)
        await connection.execute(QUERIES.expire_approvals, turn_id, EXPIRED)
        return await _resume(connection, turn_id)


async def _resume(connection: Connection, turn_id: uuid.UUID) -> bool:
    """Put a parked turn back into the queue when nothing is left undecided."""
    return await connection.fetchval(QUERIES.resume_turn, turn_id) is not None
