"""Branches and copies: cut at questions, settled messages only, seen by whoever sees the parent."""

import uuid
from typing import Any

import pytest
from front_door import Door, front_door

from qlaud_actors.conversation.model import StoredMessage, is_question
from qlaud_actors.db.pool import Pool
from qlaud_actors.ids import new_uuid

CALL = [{"type": "tool_use", "id": "t1", "name": "x", "input": {}}]
RESULT = [{"type": "tool_result", "tool_use_id": "t1", "content": "42"}]
TALK = [
    ("user", "How much?"),
    ("assistant", CALL),
    ("user", RESULT),
    ("assistant", [{"type": "text", "text": "42."}]),
    ("user", [{"type": "text", "text": "Sure?"}]),
    ("assistant", "Yes."),
]
"""Two turns; the first one used a tool."""


async def thread(door: Door, pool: Pool, talk: list[tuple[str, Any]], key: str | None = None) -> str:
    """A thread in which all this was said, by turns long ended."""
    status, made = await door.ask(
        "POST", "/v1/threads", {"title": "T", "metadata": {"a": 1}, "end_user_id": "ann"}, key=key
    )
    assert status == 201
    for seq, (role, content) in enumerate(talk, 1):
        await pool.execute(
            "INSERT INTO messages (thread_id, seq, role, content, request_id) VALUES ($1, $2, $3, $4, 'r')",
            *(uuid.UUID(made["id"]), seq, role, content),
        )
    await pool.execute("UPDATE threads SET last_seq = $2 WHERE id = $1", uuid.UUID(made["id"]), len(talk))
    return str(made["id"])


async def said(door: Door, thread_id: str) -> list[tuple[str, Any]]:
    """What a thread holds."""
    _, page = await door.ask("GET", f"/v1/threads/{thread_id}/messages")
    assert [m["seq"] for m in page["data"]] == list(range(1, len(page["data"]) + 1))
    return [(m["role"], m["content"]) for m in page["data"]]


@pytest.mark.parametrize(
    ("from_seq", "kept", "question"),
    [(1, 0, 1), (2, 0, 1), (3, 0, 1), (4, 0, 1), (5, 4, 5), (6, 4, 5)],
)
async def test_a_branch_ends_before_a_question(pool: Pool, from_seq: int, kept: int, question: int) -> None:
    """Whatever message of a turn is named, the branch has the turns before it, and the question is told."""
    async with front_door(pool) as door:
        parent = await thread(door, pool, TALK)
        status, made = await door.ask("POST", f"/v1/threads/{parent}/branches", {"from_seq": from_seq})
        assert status == 201
        assert (made["parent_thread_id"], made["branched_at_seq"]) == (parent, kept)
        assert made["replaced"]["seq"] == question
        assert made["replaced"]["content"] == TALK[question - 1][1]
        assert await said(door, made["id"]) == TALK[:kept]
        assert await said(door, parent) == TALK


async def test_a_copy_has_everything_and_outlives_its_parent(pool: Pool) -> None:
    """Title, metadata and end user are the parent's unless others are given; its end changes nothing."""
    async with front_door(pool) as door:
        parent = await thread(door, pool, TALK)
        _, plain = await door.ask("POST", f"/v1/threads/{parent}/copy")
        _, named = await door.ask("POST", f"/v1/threads/{parent}/copy", {"title": "N", "metadata": {"b": 2}})
        assert (plain["title"], plain["metadata"], plain["end_user_id"]) == ("T", {"a": 1}, "ann")
        assert (named["title"], named["metadata"], named["replaced"]) == ("N", {"a": 1, "b": 2}, None)
        _, listed = await door.ask("GET", f"/v1/threads/{parent}/branches?limit=1")
        assert ([t["id"] for t in listed["data"]], listed["has_more"]) == ([named["id"]], True)
        _, rest = await door.ask("GET", f"/v1/threads/{parent}/branches?after={named['id']}")
        assert [t["id"] for t in rest["data"]] == [plain["id"]]
        assert (await door.ask("DELETE", f"/v1/threads/{parent}"))[0] == 200
        assert await said(door, plain["id"]) == TALK
        assert (await door.ask("DELETE", "/v1/threads/empty"))[1] == {"deleted": 0}


async def test_what_a_running_turn_writes_stays_behind(pool: Pool) -> None:
    """A copy made in the middle of a turn ends before it: it could hold a call without its result."""
    async with front_door(pool) as door:
        parent = await thread(door, pool, TALK)
        turn = new_uuid()
        await pool.execute(
            "INSERT INTO turns (id, thread_id, account_id, key_id, number, request, content, request_id,"
            " fingerprint, status, wake_at)"
            " SELECT $1, id, account_id, key_id, 1, '{}', '\"x\"', 'r', '\\x00',"
            " 'running', now() FROM threads WHERE id = $2",
            *(turn, uuid.UUID(parent)),
        )
        await pool.execute(
            "UPDATE messages SET turn_id = $1 WHERE thread_id = $2 AND seq >= 5", turn, uuid.UUID(parent)
        )
        _, made = await door.ask("POST", f"/v1/threads/{parent}/copy")
        assert await said(door, made["id"]) == TALK[:4]


async def test_a_branch_is_seen_by_those_who_see_its_parent(pool: Pool) -> None:
    """Also one that an admin made of a user's thread; and by nobody else."""
    async with front_door(pool) as door:
        ann, bob = (await door.mint())["secret"], (await door.mint())["secret"]
        parent = await thread(door, pool, TALK, ann)
        _, made = await door.ask("POST", f"/v1/threads/{parent}/copy")
        assert (await door.ask("GET", f"/v1/threads/{made['id']}", key=ann))[0] == 200
        for path in (f"/v1/threads/{made['id']}", f"/v1/threads/{parent}/branches"):
            assert (await door.ask("GET", path, key=bob))[0] == 404
        assert (await door.ask("POST", f"/v1/threads/{parent}/copy", key=bob))[0] == 404


def test_results_alone_are_no_question() -> None:
    """What the user adds to them is."""

    def asked(role: Any, content: Any) -> bool:
        return is_question(StoredMessage(1, role, content, "r", 0))

    assert asked("user", "Hi")
    assert asked("user", [*RESULT, {"type": "text", "text": "And?"}])
    assert not asked("user", RESULT)
    assert not asked("assistant", "Hi")
