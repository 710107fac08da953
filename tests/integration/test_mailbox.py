"""The mailbox: accept, claim with a fence, order, hand back, sweep, cancel — on a real Postgres."""

import asyncio
import uuid
from dataclasses import replace

import pytest

from qlaud_actors.carrier import Renewal
from qlaud_actors.conversation import mailbox, store, threads
from qlaud_actors.conversation.journal import fenced
from qlaud_actors.conversation.mailbox import NewTurn
from qlaud_actors.conversation.model import MAX_ATTEMPTS, TurnOutcome, TurnRequest
from qlaud_actors.db.pool import Pool
from qlaud_actors.errors import IdempotencyConflict, LeaseLost, NotFound, TurnCancelled
from qlaud_actors.ids import new_uuid

ACCOUNT = uuid.UUID("00000000-0000-7000-8000-000000000001")


@pytest.fixture
async def key_id(pool: Pool) -> uuid.UUID:
    """A standard key without a cap."""
    key = new_uuid()
    await pool.execute(
        "INSERT INTO keys (id, account_id, name, scope, prefix) VALUES ($1, $2, 'k', 'standard', 'p')",
        key,
        ACCOUNT,
    )
    await pool.execute("INSERT INTO budgets (key_id) VALUES ($1)", key)
    return key


@pytest.fixture
async def thread_id(pool: Pool, key_id: uuid.UUID) -> uuid.UUID:
    """An empty thread."""
    thread = new_uuid()
    await pool.execute(
        "INSERT INTO threads (id, account_id, key_id) VALUES ($1, $2, $3)", thread, ACCOUNT, key_id
    )
    return thread


@pytest.fixture
def new(key_id: uuid.UUID, thread_id: uuid.UUID):
    """Makes turns as the front door does."""

    def make(text: str = "hi", idempotency_key: str | None = None) -> NewTurn:
        return NewTurn(
            new_uuid(),
            thread_id,
            ACCOUNT,
            key_id,
            TurnRequest("m", 10),
            text,
            "req",
            text.encode(),
            idempotency_key,
        )

    return make


async def expire(pool: Pool, turn_id: uuid.UUID) -> None:
    await pool.execute("UPDATE turns SET lease_until = now() - interval '1 second' WHERE id = $1", turn_id)


async def test_the_same_idempotency_key_is_one_turn(pool: Pool, new) -> None:
    """A client that lost the answer may send its request again, also at the same time."""
    accepted = await asyncio.gather(*(mailbox.accept(pool, new("hi", "once")) for _ in range(10)))
    assert len({a.turn_id for a in accepted}) == 1
    assert sum(not a.replayed for a in accepted) == 1
    with pytest.raises(IdempotencyConflict):
        await mailbox.accept(pool, new("something else", "once"))
    assert await pool.fetchval("SELECT count(*) FROM turns") == 1


async def test_one_of_many_claims_wins(pool: Pool, new) -> None:
    """Two workers never carry one turn."""
    accepted = await mailbox.accept(pool, new())
    claims = await asyncio.gather(*(mailbox.claim(pool, accepted.turn_id, f"w{i}", 10) for i in range(10)))
    assert len([turn for turn in claims if turn]) == 1


async def test_turns_of_a_thread_run_in_order(pool: Pool, new) -> None:
    """A later turn cannot be claimed before the earlier one has ended; its message comes after."""
    first, second = [await mailbox.accept(pool, new(text)) for text in ("one", "two")]
    assert await mailbox.claim(pool, second.turn_id, "w", 10) is None
    turn = await mailbox.claim(pool, first.turn_id, "w", 10)
    assert turn is not None
    async with fenced(pool, turn) as connection:
        await store.append_message(connection, turn, "assistant", "answer")
    finished = await mailbox.finish(pool, turn, TurnOutcome())
    assert finished is not None
    assert finished.next_turn == second.turn_id
    assert finished.turn.final_seq == 2
    assert await mailbox.claim(pool, second.turn_id, "w", 10) is not None
    rows = await pool.fetch("SELECT seq, content FROM messages ORDER BY seq")
    assert [(row["seq"], row["content"]) for row in rows] == [(1, "one"), (2, "answer"), (3, "two")]


async def test_a_zombie_cannot_write(pool: Pool, new) -> None:
    """Once another worker has claimed the turn, the old epoch's writes are refused."""
    accepted = await mailbox.accept(pool, new())
    zombie = await mailbox.claim(pool, accepted.turn_id, "old", 10)
    await expire(pool, accepted.turn_id)
    owner = await mailbox.claim(pool, accepted.turn_id, "new", 10)
    assert zombie is not None
    assert owner is not None
    assert owner.epoch == zombie.epoch + 1
    with pytest.raises(LeaseLost):
        async with fenced(pool, zombie):
            pass
    assert await mailbox.finish(pool, zombie, TurnOutcome()) is None
    assert await mailbox.renew(pool, [zombie, owner], 10) == {owner.id: Renewal(False, True)}


async def test_a_lost_worker_is_noticed(pool: Pool, new) -> None:
    """The sweeper puts a turn whose lease has ended back into the queue."""
    accepted = await mailbox.accept(pool, new())
    await mailbox.claim(pool, accepted.turn_id, "w", 10)
    assert (await mailbox.sweep(pool)).wake == []
    await expire(pool, accepted.turn_id)
    assert accepted.turn_id in (await mailbox.sweep(pool)).wake
    assert await mailbox.claim(pool, accepted.turn_id, "w2", 10) is not None


async def test_a_wake_up_that_was_lost_is_sent_again(pool: Pool, new) -> None:
    """A queued turn that nobody took is woken, and not again at once."""
    accepted = await mailbox.accept(pool, new())
    await pool.execute("UPDATE turns SET wake_at = now() - interval '1 second'")
    assert (await mailbox.sweep(pool)).wake == [accepted.turn_id]
    assert (await mailbox.sweep(pool)).wake == []


async def test_a_turn_that_kills_workers_ends(pool: Pool, new, key_id: uuid.UUID) -> None:
    """After its last attempt a turn fails, frees the thread and gives its hold back."""
    accepted, waiting = await mailbox.accept(pool, new("poison")), await mailbox.accept(pool, new("next"))
    for _ in range(MAX_ATTEMPTS):
        assert await mailbox.claim(pool, accepted.turn_id, "w", 10)
        await expire(pool, accepted.turn_id)
    await pool.execute("INSERT INTO holds VALUES ($1, $2, $3, 500)", new_uuid(), key_id, accepted.turn_id)
    await pool.execute("UPDATE budgets SET held_nanos = 500")
    swept = await mailbox.sweep(pool)
    assert [(f.turn.status, f.next_turn) for f in swept.finished] == [("failed", waiting.turn_id)]
    assert swept.finished[0].turn.error["code"] == "turn_abandoned"
    assert await pool.fetchval("SELECT held_nanos FROM budgets WHERE key_id = $1", key_id) == 0
    assert await mailbox.claim(pool, waiting.turn_id, "w", 10) is not None


async def test_a_worker_that_stops_gives_its_turns_back(pool: Pool, new) -> None:
    """Handing back does not count as a lost worker."""
    accepted = await mailbox.accept(pool, new())
    for _ in range(MAX_ATTEMPTS + 2):
        turn = await mailbox.claim(pool, accepted.turn_id, "w", 10)
        assert turn is not None
        assert await mailbox.hand_back(pool, [turn]) == [turn.id]


async def test_cancel_ends_what_nobody_owns(pool: Pool, new) -> None:
    """A queued turn, and one whose worker is dead, end at once; a running one is asked to stop."""
    queued = await mailbox.accept(pool, new())
    finished = await mailbox.cancel(pool, queued.turn_id)
    assert finished is not None
    assert finished.turn.status == "cancelled"
    running = await mailbox.accept(pool, new("two"))
    turn = await mailbox.claim(pool, running.turn_id, "w", 10)
    assert turn is not None
    assert await mailbox.cancel(pool, turn.id) is None
    assert await mailbox.renew(pool, [turn], 10) == {turn.id: Renewal(True, True)}
    await expire(pool, turn.id)
    assert await mailbox.cancel(pool, turn.id) is not None


async def test_a_thread_that_is_gone_takes_no_turn(pool: Pool, new, thread_id: uuid.UUID) -> None:
    """A deleted thread is not found, and nothing is written."""
    await pool.execute("UPDATE threads SET deleted_at = now() WHERE id = $1", thread_id)
    with pytest.raises(NotFound):
        await mailbox.accept(pool, new())
    assert await pool.fetchval("SELECT count(*) FROM turns") == 0


async def test_a_locked_turn_does_not_hold_up_the_others(pool: Pool, new) -> None:
    """Renewing passes over a row that a transaction holds: it is still ours, and the rest is renewed."""
    accepted = await mailbox.accept(pool, new("stuck"))
    stuck = await mailbox.claim(pool, accepted.turn_id, "w", 10)
    assert stuck is not None
    other_thread = new_uuid()
    await pool.execute(
        "INSERT INTO threads (id, account_id, key_id) VALUES ($1, $2, $3)",
        other_thread,
        ACCOUNT,
        stuck.key_id,
    )
    free_id = (await mailbox.accept(pool, replace(new("free"), thread_id=other_thread))).turn_id
    free = await mailbox.claim(pool, free_id, "w", 10)
    assert free is not None
    async with fenced(pool, stuck):
        renewals = await asyncio.wait_for(mailbox.renew(pool, [stuck, free], 10), 2)
    assert renewals == {stuck.id: Renewal(False, False), free.id: Renewal(False, True)}


async def test_a_deleted_threads_text_is_gone_for_good(pool: Pool, new, thread_id: uuid.UUID) -> None:
    """A turn that still writes after the delete, and a process that died in it, leave no text behind."""
    turn = await mailbox.claim(pool, (await mailbox.accept(pool, new("secret words"))).turn_id, "w", 10)
    assert turn is not None
    await pool.execute(
        "UPDATE threads SET deleted_at = now() - interval '5 seconds' WHERE id = $1", thread_id
    )
    assert await threads.purge_leftovers(pool) == []
    async with fenced(pool, turn) as connection:
        await store.append_message(connection, turn, "assistant", "secret answer")
    await mailbox.finish(pool, turn, TurnCancelled())
    await threads.purge_leftovers(pool)
    assert await pool.fetchval("SELECT count(*) FROM messages") == 0
    assert "secret" not in str(await pool.fetch("SELECT content, request, error FROM turns"))
    assert await pool.fetchval("SELECT purged_at IS NOT NULL FROM threads WHERE id = $1", thread_id)


async def test_a_text_with_nul_is_removed_too(pool: Pool, new, thread_id: uuid.UUID) -> None:
    """JSON can say NUL, Postgres text cannot: the thread is purged all the same, and keeps its model."""
    said = new("words")
    said = replace(said, request=replace(said.request, system="secret\x00 words"))
    turn = await mailbox.claim(pool, (await mailbox.accept(pool, said)).turn_id, "w", 10)
    assert turn is not None
    await mailbox.finish(pool, turn, TurnCancelled())
    await pool.execute(
        "UPDATE threads SET deleted_at = now() - interval '5 seconds' WHERE id = $1", thread_id
    )
    await threads.purge_leftovers(pool)
    left = await pool.fetchval("SELECT request FROM turns")
    assert left == {"model": said.request.model, "max_tokens": 0}
