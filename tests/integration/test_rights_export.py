"""Copies of threads and end users: whole, resumable, of nobody else, and equal when imported again."""

import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
from front_door import Door, front_door
from test_branches import TALK, thread

from qlaud_actors import import_tasks
from qlaud_actors.db.pool import Pool
from qlaud_actors.ids import new_uuid
from qlaud_actors.rights import export
from qlaud_actors.settings import Secret


async def copy(door: Door, path: str, key: str | None = None) -> list[dict[str, Any]]:
    """The lines of an export."""
    headers = {"x-api-key": key or door.master}
    async with door.client.get(path, headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "application/x-ndjson"
        return [msgspec.json.decode(line) for line in (await response.read()).splitlines()]


async def with_turn(pool: Pool, thread_id: str) -> None:
    """A finished turn with a tool call and what it used."""
    turn, found = new_uuid(), uuid.UUID(thread_id)
    await pool.execute(
        "INSERT INTO turns (id, thread_id, account_id, key_id, number, request, content, request_id,"
        " fingerprint, status)"
        " SELECT $1, id, account_id, key_id, 1, '{\"model\":\"m\",\"max_tokens\":9}', '\"x\"', 'r', '\\x00',"
        " 'completed' FROM threads WHERE id = $2",
        *(turn, found),
    )
    await pool.execute(
        "INSERT INTO tool_calls (id, turn_id, step, tool_use_id, name, input, effect, kind, state, epoch,"
        " output)"
        " VALUES ('c-' || $1::uuid, $1::uuid, 1, 't1', 'x', '{}', 'read', 'webhook', 'done', 1, '42')",
        turn,
    )
    await pool.execute(
        "INSERT INTO usage_events (id, account_id, key_id, turn_id, step, end_user_id, model_slug,"
        " provider_slug, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,"
        " cache_write_1h_tokens,"
        " provider_cost_picos, cost_nanos, price_version, markup_bps, estimated, latency_ms, status)"
        " SELECT $1, account_id, key_id, $1, 1, end_user_id, 'm', 'p', 1, 2, 0, 0, 0, 3, 4, 'v', 0, false,"
        " 5, 200 FROM turns t JOIN threads USING (account_id, key_id)"
        " WHERE t.id = $1 AND threads.id = t.thread_id",
        turn,
    )


def kinds(lines: list[dict[str, Any]]) -> list[str]:
    return [line["type"] for line in lines]


async def test_a_thread_is_told_whole(pool: Pool) -> None:
    """Its messages, turns, tool calls and usage, between `export` and `end`."""
    async with front_door(pool) as door:
        found = await thread(door, pool, TALK)
        await with_turn(pool, found)
        lines = await copy(door, f"/v1/threads/{found}/export")
        assert kinds(lines) == ["export", "thread", *["message"] * 6, "turn", "tool_call", "usage", "end"]
        assert [(line["role"], line["content"]) for line in lines[2:8]] == TALK
        assert (lines[9]["output"], lines[10]["cost_nanos"]) == (42, 4)


async def test_a_cut_copy_goes_on_anywhere(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind each line, with pages of any size, comes exactly what was missing."""
    async with front_door(pool) as door:
        for _ in range(3):
            await with_turn_once(pool, await thread(door, pool, TALK))
        path = "/v1/end-users/ann/export"
        whole = await copy(door, path)
        assert kinds(whole).count("thread") == 3
        for rows in (1, 2, 200):
            monkeypatch.setattr(export, "PAGE_ROWS", max(rows, 2))
            assert await copy(door, path) == whole
            for number, line in enumerate(whole):
                if "cursor" in line:
                    assert await copy(door, f"{path}?after={line['cursor']}") == whole[number + 1 :]


async def test_a_cursor_behind_all_lines_has_nothing_left(pool: Pool) -> None:
    """A position that no row can have is not an error in the middle of a download."""
    async with front_door(pool) as door:
        found = await thread(door, pool, TALK)
        for section in export.SECTIONS:
            after = f"{found}/{section}/{'9' * 18}"
            lines = await copy(door, f"/v1/threads/{found}/export?after={after}")
            assert kinds(lines) == ["end"]


async def with_turn_once(pool: Pool, thread_id: str) -> None:
    """A turn for the first thread only: the ids of its parts are fixed."""
    if not await pool.fetchval("SELECT count(*) FROM turns"):
        await with_turn(pool, thread_id)


async def test_nobody_elses_is_in_it(pool: Pool) -> None:
    """Of an end user only that one's; a standard key only what it sees, and no end user's copy."""
    async with front_door(pool) as door:
        mine = await thread(door, pool, TALK)
        await door.ask("POST", "/v1/threads", {"end_user_id": "bob"})
        await door.ask("DELETE", f"/v1/threads/{await thread(door, pool, TALK)}")
        lines = await copy(door, "/v1/end-users/ann/export")
        assert [line["id"] for line in lines if line["type"] == "thread"] == [mine]
        assert kinds(await copy(door, "/v1/end-users/nobody/export")) == ["export", "end"]
        other = (await door.mint())["secret"]
        assert (await door.ask("GET", f"/v1/threads/{mine}/export", key=other))[0] == 404
        assert (await door.ask("GET", "/v1/end-users/ann/export", key=other))[0] == 403


async def test_a_copy_imports_to_an_equal_thread(pool: Pool, tmp_path: Path) -> None:
    """The same messages with their times, title, metadata and end user."""
    async with front_door(pool) as door:
        found = await thread(door, pool, TALK)
        file = tmp_path / "thread.jsonl"
        lines = await copy(door, f"/v1/threads/{found}/export")
        file.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
        target = import_tasks.Target(str(door.client.make_url("/")), Secret(door.master))
        assert await import_tasks.run(file, "auto", target) == 0
        _, listed = await door.ask("GET", "/v1/threads?end_user_id=ann")
        (again,) = [t["id"] for t in listed["data"] if t["id"] != found]
        copied = await copy(door, f"/v1/threads/{again}/export")
        for before, after in zip(lines, copied, strict=True):
            for name in ("type", "title", "metadata", "end_user_id", "seq", "role", "content"):
                assert before.get(name) == after.get(name)
            if before["type"] == "message":
                assert before["created_at"] == after["created_at"]
