"""Parking and deciding in a real Postgres: whoever comes first, nothing is lost and nothing decided twice."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

import pytest

from qlaud_actors.conversation import approvals, mailbox, store
from qlaud_actors.conversation.approval_rules import Decision
from qlaud_actors.conversation.approvals import TurnApprovals, decide
from qlaud_actors.conversation.events import Event
from qlaud_actors.conversation.mailbox import NewTurn
from qlaud_actors.conversation.model import MAX_ATTEMPTS, Progress, Turn, TurnRequest
from qlaud_actors.conversation.publisher import TurnLog
from qlaud_actors.conversation.store import QUERIES
from qlaud_actors.db.pool import Pool
from qlaud_actors.errors import Conflict, LeaseLost, NotFound, TurnCancelled
from qlaud_actors.ids import new_uuid
from qlaud_actors.tools.model import Tool, ToolCall, Toolset

ACCOUNT = uuid.UUID("00000000-0000-7000-8000-000000000001")
TOOLSET = Toolset((Tool("t", "t", "d", {"type": "object"}, "webhook"),))


@dataclass
class Log:
    """What clients are told."""

    events: list[Event] = field(default_factory=list)

    @property
    def seq(self) -> int:
        """The last event's number."""
        return len(self.events)

    def publish(self, event: Event) -> None:
        """Tell it."""
        self.events.append(event)


@dataclass
class Room:
    """A thread with one turn of two calls that wait for a worker, and a turn behind it."""

    pool: Pool
    key: uuid.UUID
    thread: uuid.UUID
    turns: list[uuid.UUID]
    calls: tuple[ToolCall, ...]
    log: Log = field(default_factory=Log)

    async def claim(self) -> Turn:
        """Own the turn."""
        turn = await mailbox.claim(self.pool, self.turns[0], "w", 10)
        assert turn is not None
        return turn

    async def park(self, turn: Turn, meanwhile: Callable[[], Awaitable[object]] | None = None) -> bool:
        """Park it as the loop does; `meanwhile` happens between telling and parking."""

        async def flush() -> None:
            if meanwhile is not None:
                await meanwhile()

        asking = TurnApprovals(self.pool, turn, TOOLSET, cast("TurnLog", self.log), flush)
        return await asking.park(Progress((), 1, self.calls))

    async def say(self, number: int, approve: bool) -> bool:
        """Decide about a call; whether the turn is to be woken."""
        decision = Decision(approve, self.key, "no")
        _, resumed = await decide(self.pool, self.thread, self.calls[number].tool_use_id, decision)
        return resumed

    async def status(self) -> str:
        """Of the turn."""
        turn = await store.get_turn(self.pool, self.turns[0])
        assert turn is not None
        return turn.status

    async def states(self) -> list[str]:
        """Of the calls."""
        return [call.state for call in await store.list_tool_calls(self.pool, self.turns[0])]


@pytest.fixture
async def room(pool: Pool) -> Room:
    """Two turns and two calls."""
    key, thread = new_uuid(), new_uuid()
    await pool.execute(
        "INSERT INTO keys (id, account_id, name, scope, prefix) VALUES ($1, $2, 'k', 'standard', 'p')",
        key,
        ACCOUNT,
    )
    await pool.execute("INSERT INTO budgets (key_id) VALUES ($1)", key)
    insert = "INSERT INTO threads (id, account_id, key_id) VALUES ($1, $2, $3)"
    await pool.execute(insert, thread, ACCOUNT, key)
    asked = TurnRequest("m", 10, approval="writes", approval_timeout_s=60)
    turns = [new_uuid(), new_uuid()]
    for turn in turns:
        await mailbox.accept(pool, NewTurn(turn, thread, ACCOUNT, key, asked, "hi", "req", b"hi"))
    calls = tuple(ToolCall(f"call_{n}", f"toolu_{n}", "t", {"n": n}) for n in range(2))
    for n, call in enumerate(calls):
        row = (call.id, turns[0], 1, n, call.tool_use_id, "t", call.input, "write", "webhook", 1)
        await pool.execute(QUERIES.insert_tool_call, *row)
    return Room(pool, key, thread, turns, calls)


async def expire_all(pool: Pool) -> None:
    past = "UPDATE tool_calls SET approval_expires_at = now() - interval '1 second'"
    await pool.execute(f"{past} WHERE state = 'awaiting_approval'")


async def test_a_parked_turn_waits_for_the_last_word(room: Room) -> None:
    """It is told of both calls, keeps its place in the line, and is woken by the second decision only."""
    turn = await room.claim()
    assert await room.park(turn)
    assert [event["tool_use_id"] for event in room.log.events] == ["toolu_0", "toolu_1"]
    assert await room.status() == "parked"
    assert await mailbox.hand_back(room.pool, [turn]) == []
    for turn_id in room.turns:
        assert await mailbox.claim(room.pool, turn_id, "w", 10) is None
    await room.pool.execute("UPDATE turns SET wake_at = now() - interval '1 second'")
    assert (await mailbox.sweep(room.pool)).wake == []
    assert not await room.say(0, approve=True)
    assert await room.status() == "parked"
    assert await room.say(1, approve=False)
    assert await room.states() == ["intended", "failed"]
    again = await room.claim()
    assert again.resumes
    assert again.attempts == 1
    assert not await room.park(again)


async def test_parking_is_no_attempt(room: Room) -> None:
    """A turn may be parked more often than it may lose workers."""
    for _ in range(MAX_ATTEMPTS + 1):
        turn = await room.claim()
        assert await room.park(turn)
        await room.pool.execute("UPDATE turns SET status = 'queued' WHERE status = 'parked'")
    assert (await room.claim()).attempts == 1


async def test_a_decision_before_the_turn_is_parked(room: Room) -> None:
    """Who answers at once finds a turn that still runs; it goes on without being parked or woken."""
    turn = await room.claim()

    async def both() -> None:
        assert not await room.say(0, approve=True)
        assert not await room.say(1, approve=True)

    assert not await room.park(turn, both)
    assert await room.status() == "running"


async def test_decisions_race_with_parking(room: Room) -> None:
    """Whatever the order, the turn is either not parked or woken exactly once."""
    turn = await room.claim()
    seen = asyncio.Event()

    async def soon(number: int) -> bool:
        await seen.wait()
        return await room.say(number, approve=True)

    async def told() -> None:
        seen.set()

    racing = [asyncio.ensure_future(soon(n)) for n in (0, 1)]
    parked = await room.park(turn, told)
    woken = await asyncio.gather(*racing)
    assert woken.count(True) == (1 if parked else 0)
    assert await room.status() == ("queued" if parked else "running")


async def test_two_doors_contradict_each_other(room: Room) -> None:
    """Of ten words at the same moment the first counts; those that agree succeed, the others do not."""
    await room.park(await room.claim())
    words = [room.say(0, approve=bool(n % 2)) for n in range(10)]
    answers = await asyncio.gather(*words, return_exceptions=True)
    assert len([a for a in answers if isinstance(a, Conflict)]) == 5
    assert [a for a in answers if not isinstance(a, Conflict)] == [False] * 5


async def test_nobody_was_asked(room: Room) -> None:
    """A call that no person was asked about cannot be approved."""
    with pytest.raises(NotFound):
        await room.say(0, approve=True)


async def test_a_cancelled_turn_is_not_parked(room: Room) -> None:
    """A cancel that comes before parking stops the turn; one that comes after ends it, and its calls."""
    turn = await room.claim()
    with pytest.raises(TurnCancelled):
        await room.park(turn, lambda: mailbox.cancel(room.pool, turn.id))
    assert await mailbox.finish(room.pool, turn, TurnCancelled()) is not None
    assert await room.states() == ["failed", "failed"]
    with pytest.raises(Conflict):
        await room.say(0, approve=True)


async def test_cancelling_a_parked_turn_frees_its_thread(room: Room) -> None:
    """It ends here and now; an approval of it is too late, and the turn behind it is next."""
    await room.park(await room.claim())
    finished = await mailbox.cancel(room.pool, room.turns[0])
    assert finished is not None
    assert (finished.turn.status, finished.next_turn) == ("cancelled", room.turns[1])
    with pytest.raises(Conflict):
        await room.say(0, approve=True)
    assert await room.states() == ["failed", "failed"]
    await expire_all(room.pool)
    assert await approvals.expire(room.pool) == []


async def test_a_lost_worker_is_followed_by_one_that_asks_again(room: Room) -> None:
    """Marked and told but not parked: the next owner tells it again, and the lost one can park nothing."""
    lost = await room.claim()

    async def lose() -> None:
        await room.pool.execute("UPDATE turns SET lease_until = now() - interval '1 second'")
        assert not (await room.claim()).resumes

    with pytest.raises(LeaseLost):
        await room.park(lost, lose)
    owner = await store.get_turn(room.pool, room.turns[0])
    assert owner is not None
    assert await room.park(owner)
    assert len(room.log.events) == 4
    assert await room.status() == "parked"


async def test_what_nobody_decides_is_declined_once(room: Room) -> None:
    """Sweeps of several workers at once wake the turn once; the one call that was approved stays so."""
    await room.park(await room.claim())
    await room.say(0, approve=True)
    await expire_all(room.pool)
    with pytest.raises(Conflict):
        await room.say(1, approve=True)
    woken = await asyncio.gather(*(approvals.expire(room.pool) for _ in range(4)))
    assert [turn for turns in woken for turn in turns] == [room.turns[0]]
    assert await room.states() == ["intended", "failed"]
    assert await room.say(1, approve=False) is False
