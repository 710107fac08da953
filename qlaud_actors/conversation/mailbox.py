"""The mailbox of a thread: turns are accepted, claimed, renewed, finished, cancelled and swept here.

Postgres is the queue's truth. What goes through the broker is a wake-up that may be lost or doubled.
"""

import uuid
from dataclasses import dataclass
from typing import Any

import msgspec

from qlaud_actors.billing import meter
from qlaud_actors.carrier import Renewal
from qlaud_actors.conversation import store
from qlaud_actors.conversation.approval_rules import TURN_ENDED
from qlaud_actors.conversation.model import (
    MAX_ATTEMPTS,
    MAX_QUEUED_TURNS,
    Turn,
    TurnOutcome,
    TurnRequest,
)
from qlaud_actors.conversation.store import QUERIES
from qlaud_actors.db.pool import Connection, Pool, Rows, UniqueViolation
from qlaud_actors.deliveries import outbox
from qlaud_actors.errors import (
    IdempotencyConflict,
    NotFound,
    QlaudError,
    RateLimited,
    SpendCapReached,
    TurnAbandoned,
    TurnCancelled,
)
from qlaud_actors.providers.model import Block


@dataclass(frozen=True, slots=True)
class NewTurn:
    """A turn as it comes in at the front door."""

    id: uuid.UUID
    thread_id: uuid.UUID
    account_id: uuid.UUID
    key_id: uuid.UUID
    request: TurnRequest
    content: str | list[Block]
    request_id: str
    fingerprint: bytes
    """Of the request body: the same idempotency key must come with the same one."""
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The turn that answers a request: a new one, or the first one of its idempotency key."""

    turn_id: uuid.UUID
    thread_id: uuid.UUID
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a turn, and which turn of its thread waits next."""

    turn: Turn
    next_turn: uuid.UUID | None


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found: turns to wake, turns that it had to fail."""

    wake: list[uuid.UUID]
    finished: list[Finished]


async def accept(pool: Pool, new: NewTurn) -> Accepted:
    """Put a turn into its thread's mailbox, once per idempotency key.

    Raises NotFound (thread gone), IdempotencyConflict, RateLimited (mailbox full).
    """
    if first := await first_use(pool, new):
        return first
    try:
        async with pool.acquire() as connection, connection.transaction():
            await _insert(connection, new)
    except UniqueViolation:
        if first := await first_use(pool, new):
            return first
        raise
    return Accepted(new.id, new.thread_id)


async def first_use(pool: Pool, new: NewTurn) -> Accepted | None:
    """The turn that an idempotency key was used for before. Raises IdempotencyConflict."""
    if new.idempotency_key is None:
        return None
    row = await pool.fetchrow(QUERIES.turn_by_idempotency_key, new.key_id, new.idempotency_key)
    if row is None:
        return None
    if row["fingerprint"] != new.fingerprint:
        raise IdempotencyConflict
    return Accepted(row["id"], row["thread_id"], replayed=True)


async def _insert(connection: Connection, new: NewTurn) -> None:
    number = await connection.fetchval(QUERIES.next_turn_number, new.thread_id)
    if number is None:
        raise NotFound("There is no such thread.")
    if await connection.fetchval(QUERIES.count_unfinished, new.thread_id) >= MAX_QUEUED_TURNS:
        raise RateLimited(f"This thread has {MAX_QUEUED_TURNS} unfinished turns; wait for some to end.")
    await connection.execute(
        QUERIES.insert_turn,
        new.id,
        new.thread_id,
        new.account_id,
        new.key_id,
        number,
        msgspec.to_builtins(new.request),
        new.content,
        new.request_id,
        new.idempotency_key,
        new.fingerprint,
    )
    await connection.execute(QUERIES.place_user_message, new.id)


async def claim(pool: Pool, turn_id: uuid.UUID, owner: str, lease_seconds: float) -> Turn | None:
    """Own a turn: None when it is finished, alive elsewhere, or not at the head of its line.

    The epoch that comes with it fences every later write.
    """
    async with pool.acquire() as connection, connection.transaction():
        claimed = await connection.fetchval(QUERIES.claim_turn, turn_id, owner, lease_seconds, MAX_ATTEMPTS)
        if claimed is None:
            return None
        await connection.execute(QUERIES.place_user_message, turn_id)
        return await store.get_turn(connection, turn_id)


async def renew(rows: Rows, turns: list[Turn], lease_seconds: float) -> dict[uuid.UUID, Renewal]:
    """Extend the leases; a turn that is missing from the answer is not ours any more."""
    found = await rows.fetch(
        QUERIES.renew_leases, [t.id for t in turns], [t.epoch for t in turns], lease_seconds
    )
    return {row["id"]: Renewal(row["cancel_requested"], row["renewed"]) for row in found}


async def hand_back(pool: Pool, turns: list[Turn]) -> list[uuid.UUID]:
    """Give turns to whoever comes next, without counting it as an attempt."""
    rows = await pool.fetch(QUERIES.hand_back_turns, [t.id for t in turns], [t.epoch for t in turns])
    return [row["id"] for row in rows]


async def finish(pool: Pool, turn: Turn, result: TurnOutcome | QlaudError) -> Finished | None:
    """End a turn that we own: status, error and holds in one transaction. None when the lease was lost."""
    status = "completed"
    if isinstance(result, QlaudError):
        status = "cancelled" if isinstance(result, TurnCancelled) else "failed"
    async with pool.acquire() as connection, connection.transaction():
        thread_id = await connection.fetchval(
            QUERIES.finish_turn,
            turn.id,
            turn.epoch,
            status,
            stored_error(result) if isinstance(result, QlaudError) else None,
            isinstance(result, TurnOutcome) and result.hit_max_iterations,
        )
        if thread_id and isinstance(result, SpendCapReached):
            await outbox.tell_cap_exceeded(connection, turn.key_id)
        return await _closed(connection, turn.id, thread_id) if thread_id else None


async def cancel(pool: Pool, turn_id: uuid.UUID) -> Finished | None:
    """Cancel a turn. One that nobody alive owns ends here and now; a running one is asked to stop."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(QUERIES.request_cancel, turn_id)
        error = stored_error(TurnCancelled())
        thread_id = await connection.fetchval(QUERIES.cancel_unowned_turn, turn_id, error)
        return await _closed(connection, turn_id, thread_id) if thread_id else None


async def sweep(pool: Pool) -> Swept:
    """Find the turns that nobody takes care of. Safe to run in every worker at once."""
    finished: list[Finished] = []
    while (abandoned := await _abandon_one(pool)) is not None:
        finished.append(abandoned)
    lost = await pool.fetch(QUERIES.requeue_lost_turns, MAX_ATTEMPTS)
    waiting = await pool.fetch(QUERIES.turns_to_wake)
    return Swept([row["id"] for row in (*lost, *waiting)], finished)


async def _abandon_one(pool: Pool) -> Finished | None:
    """Fail one turn that has lost as many workers as it may, in a transaction of its own."""
    async with pool.acquire() as connection, connection.transaction():
        turn_id = await connection.fetchval(QUERIES.turn_beyond_help, MAX_ATTEMPTS)
        if turn_id is None:
            return None
        error = stored_error(TurnAbandoned())
        thread_id = await connection.fetchval(QUERIES.abandon_turn, turn_id, error)
        return await _closed(connection, turn_id, thread_id)


async def _closed(connection: Connection, turn_id: uuid.UUID, thread_id: uuid.UUID) -> Finished:
    """Give back what a finished turn still holds, and look who waits behind it."""
    holds = [row["id"] for row in await connection.fetch(QUERIES.holds_of_turn, turn_id)]
    if holds:
        await meter.release(connection, holds)
    turn = await store.get_turn(connection, turn_id)
    assert turn is not None
    if turn.status != "completed":
        await connection.execute(QUERIES.drop_approvals, turn_id, TURN_ENDED)
    return Finished(turn, await connection.fetchval(QUERIES.next_queued_turn, thread_id))


def stored_error(error: QlaudError) -> dict[str, Any]:
    """An error as a turn keeps it: what the caller may see, nothing else."""
    return {
        "code": error.code,
        "status": error.status,
        "message": error.message,
        "details": msgspec.to_builtins(error.details, str_keys=True),
    }


async def answer_client_call(
    pool: Pool, thread_id: uuid.UUID, tool_use_id: str, output: Any, *, is_error: bool
) -> bool:
    """Store the caller's answer to a parked client tool; False when nobody waits for it."""
    call_id = await pool.fetchval(QUERIES.awaited_client_call, thread_id, tool_use_id)
    if call_id is None:
        return False
    state = "failed" if is_error else "done"
    return await pool.fetchval(QUERIES.finish_tool_call, call_id, state, output, is_error) is not None
