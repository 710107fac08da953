"""Copies of threads and end users: whole, resumable, of nobody else, and equal when imported again."""

import base64
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
from front_door import Door, front_door
from test_branches import TALK, thread

from qlaud_actors import import_tasks
from qlaud_actors.artifacts import store as artifacts
from qlaud_actors.artifacts.model import Origin
from qlaud_actors.conversation import compaction
from qlaud_actors.db.pool import Pool
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT as ACCOUNT
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


PICTURE = b"\x89PNG\r\n\x1a\n" + b"x" * 3000


async def keep(pool: Pool, thread_id: str | None, owner: str, *kept: tuple[str, str, bytes]) -> None:
    """Let tools have kept something, in a thread or elsewhere."""
    origin = Origin(uuid.UUID(thread_id) if thread_id else None)
    for name, mime, content in kept:
        assert await artifacts.keep(pool, ACCOUNT, owner, name, mime, content, origin)


KEPT = [("plan", "text/plain", "ä\n".encode()), ("data", "application/json", b'{"a": 1}')]
KEPT += [("cat.png", "image/png", PICTURE)]


async def compact(pool: Pool, thread_id: str) -> None:
    """Let the first turn be summarised, and results be cut before that."""
    for version, summary, through, model in ((1, None, 0, None), (2, "They spoke.", 4, "m")):
        await pool.execute(
            "INSERT INTO compactions (thread_id, version, summary, summarized_through_seq,"
            " trimmed_through_seq, omitted, model, cost_nanos, created_at)"
            " VALUES ($1, $2, $3, $4, 3, $2 = 2, $5, 70, now() - interval '1 day')",
            *(uuid.UUID(thread_id), version, summary, through, model),
        )


def kinds(lines: list[dict[str, Any]]) -> list[str]:
    return [line["type"] for line in lines]


async def test_a_thread_is_told_whole(pool: Pool) -> None:
    """Its messages, turns, tool calls, usage, compactions and artifacts, between `export` and `end`."""
    async with front_door(pool) as door:
        found = await thread(door, pool, TALK)
        await with_turn(pool, found)
        await compact(pool, found)
        await keep(pool, found, "user:ann", KEPT[0])
        await keep(pool, None, f"thread:{found}", KEPT[1])
        await keep(pool, None, "user:ann", KEPT[2])
        lines = await copy(door, f"/v1/threads/{found}/export")
        after = ["turn", "tool_call", "usage", "compaction", "compaction", "artifact", "artifact"]
        assert kinds(lines) == ["export", "thread", *["message"] * 6, *after, "end"]
        assert [(line["role"], line["content"]) for line in lines[2:8]] == TALK
        assert (lines[9]["output"], lines[10]["cost_nanos"]) == (42, 4)
        assert [line["summary"] for line in lines[11:13]] == [None, "They spoke."]
        assert {(line["name"], line["owner"]) for line in lines[13:15]} == {
            ("plan", "user"),
            ("data", "thread"),
        }
        whole = await copy(door, "/v1/end-users/ann/export")
        (loose,) = [line for line in whole if line["type"] == "artifact" and line["thread_id"] is None]
        assert base64.b64decode(loose["content"]) == PICTURE


async def test_a_cut_copy_goes_on_anywhere(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind each line, with pages of any size, comes exactly what was missing."""
    async with front_door(pool) as door:
        for number in range(3):
            await with_turn_once(pool, found := await thread(door, pool, TALK))
            await compact(pool, found)
            for part in (found, None):
                many = [(f"{number}-{part}-{n}", "text/plain", b"x") for n in range(5)]
                await keep(pool, part, "user:ann", *many)
        path = "/v1/end-users/ann/export"
        whole = await copy(door, path)
        assert kinds(whole).count("thread") == 3
        for rows in (1, 2, 200):
            monkeypatch.setattr(export, "PAGE_ROWS", max(rows, 2))
            assert await copy(door, path) == whole
            for number, line in enumerate(whole):
                if "cursor" in line:
                    assert await copy(door, f"{path}?after={line['cursor']}") == whole[number + 1 :]


async def test_what_is_removed_during_a_download_hides_nothing_else(pool: Pool) -> None:
    """Artifacts that were told already go meanwhile: all the others still come, and none of them twice."""
    async with front_door(pool) as door:
        found = await thread(door, pool, TALK)
        for where in (found, None):
            await keep(pool, where, "user:ann", *((f"{where}{n}", "text/plain", b"x") for n in range(9)))
        path = "/v1/end-users/ann/export"
        whole = [line for line in await copy(door, path) if line["type"] == "artifact"]
        for told, rest in ((whole[:6], whole[6:]), (whole[:12], whole[12:])):
            ids = [uuid.UUID(line["id"]) for line in told]
            await pool.execute("DELETE FROM artifacts WHERE id = ANY ($1)", ids)
            more = await copy(door, f"{path}?after={told[-1]['cursor']}")
            assert [line for line in more if line["type"] == "artifact"] == rest


async def test_a_cursor_behind_all_lines_has_nothing_left(pool: Pool) -> None:
    """A position that no row can have is not an error in the middle of a download."""
    async with front_door(pool) as door:
        found = await thread(door, pool, TALK)
        for section in export.SECTIONS:
            last = export.LAST_ID if section == "artifact" else "9" * 18
            lines = await copy(door, f"/v1/threads/{found}/export?after={found}/{section}/{last}")
            assert kinds(lines) == ["end"]
            over = f"/v1/threads/{found}/export?after={found}/{section}/{last}0"
            assert (await door.ask("GET", over))[0] == 400
        beyond = f"/v1/threads/{found}/export?after={found}/artifact/{export.LAST_ID + 1}"
        assert (await door.ask("GET", beyond))[0] == 400


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


TEXTS = ("title", "workspace_id", "kind", "default_mode", "default_model", "approval", "compaction")
SUMMARY = ("version", "summary", "summarized_through_seq", "trimmed_through_seq", "omitted", "model")
SAME = {
    "thread": (*TEXTS, "metadata", "end_user_id", "compaction_threshold", "compaction_model"),
    "message": ("seq", "role", "content", "created_at"),
    "compaction": (*SUMMARY, "created_at"),
    "artifact": ("owner", "name", "mime", "content", "created_at", "updated_at"),
}
"""What an imported thread has in common with the exported one; nothing is charged for its summaries."""


def equal(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> bool:
    """Whether two copies of threads tell the same."""
    told = [
        [(line["type"], {name: line[name] for name in SAME[line["type"]]}) for line in lines]
        for lines in ([line for line in copied if line["type"] in SAME] for copied in (before, after))
    ]
    # Artifacts have no order: those of one import were stored at once.
    first, second = (sorted(t, key=lambda o: o[1]["name"] if o[0] == "artifact" else "") for t in told)
    return first == second


async def imported(door: Door, tmp_path: Path, lines: list[dict[str, Any]]) -> str:
    """The thread that a copy of one becomes."""
    file = tmp_path / "thread.jsonl"
    file.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    target = import_tasks.Target(str(door.client.make_url("/")), Secret(door.master))
    assert await import_tasks.run(file, "auto", target) == 0
    _, listed = await door.ask("GET", "/v1/threads")
    made = {t["id"]: t for t in listed["data"]}.keys() - {line.get("id") for line in lines}
    assert len(made) == 1
    return made.pop()


async def test_a_copy_imports_to_an_equal_thread(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages with their times, settings, summaries, artifacts, in one request or in several; once."""
    monkeypatch.setattr(import_tasks, "BATCH_BYTES", 4000)
    settings = {"approval": "writes", "compaction_threshold": 0.5, "compaction_model": "gpt-5.4-nano"}
    async with front_door(pool) as door:
        found = await thread(door, pool, TALK)
        await pool.execute("UPDATE threads SET end_user_id = NULL, kind = 'k', last_active_at = now()")
        assert (await door.ask("PATCH", f"/v1/threads/{found}", settings))[0] == 200
        await compact(pool, found)
        await keep(pool, found, f"thread:{found}", *KEPT)
        await pool.execute("UPDATE artifacts SET created_at = created_at - interval '1 day'")
        await pool.execute("UPDATE messages SET created_at = (SELECT last_active_at FROM threads)")
        lines = await copy(door, f"/v1/threads/{found}/export")
        again = await imported(door, tmp_path, lines)
        assert equal(lines, await copy(door, f"/v1/threads/{again}/export"))
        assert await imported(door, tmp_path, lines) == again
        assert await pool.fetchval("SELECT count(*) FROM artifacts") == 2 * len(KEPT)
        assert sum(await pool.fetchval("SELECT array_agg(cost_nanos) FROM compactions")) == 2 * 70
        view = await compaction.latest(pool, uuid.UUID(again))
        assert view
        assert (view.version, view.summary, view.summarized_through_seq) == (2, "They spoke.", 4)


async def test_a_deleted_end_users_copy_brings_the_thread_back(pool: Pool, tmp_path: Path) -> None:
    """What retention had left of it, counted anew, with what tools have kept for the end user in it."""
    async with front_door(pool) as door:
        found = await thread(door, pool, TALK)
        await compact(pool, found)
        await keep(pool, found, "user:ann", *KEPT)
        await pool.execute("DELETE FROM messages WHERE seq < 4")
        lines = await copy(door, f"/v1/threads/{found}/export")
        for table in ("artifacts", "compactions", "messages", "threads"):
            await pool.execute(f"DELETE FROM {table}")
        made = await copy(door, f"/v1/threads/{await imported(door, tmp_path, lines)}/export")
        for line in lines:
            for name in ("seq", "summarized_through_seq", "trimmed_through_seq"):
                line.update({name: line[name] - min(line[name], 3)} if name in line else {})
        assert kinds(made).count("artifact") == len(KEPT)
        assert equal(lines[2:], made[2:])


async def test_no_more_artifacts_come_in_than_one_may_have(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the whole import is refused, and nothing is changed; a name that is taken keeps what it has."""
    async with front_door(pool) as door:
        said = {"messages": [{"role": "user", "content": "Hi"}], "external_id": "x:1", "end_user_id": "ann"}
        one, other = ({"name": n, "mime": "text/plain", "content": "eA=="} for n in ("a", "b"))
        await keep(pool, None, "user:ann", ("a", "text/plain", b"mine"))
        monkeypatch.setattr(artifacts, "MAX_ARTIFACTS", 1)
        path = "/v1/threads/import"
        assert (await door.ask("POST", path, {**said, "artifacts": [one, other]}))[0] == 409
        assert await pool.fetchval("SELECT count(*) FROM threads") == 0
        assert (await door.ask("POST", path, {**said, "artifacts": [one]}))[0] == 201
        assert (await door.ask("POST", path, {**said, "artifacts": [other]}))[0] == 409
        monkeypatch.setattr(artifacts, "MAX_ARTIFACTS", 2)
        assert (await door.ask("POST", path, {**said, "artifacts": [one, other]}))[0] == 200
        kept = await pool.fetch("SELECT name, content FROM artifacts ORDER BY name")
        assert [tuple(row) for row in kept] == [("a", b"mine"), ("b", b"x")]


async def test_a_summarising_model_that_is_not_here_is_left_behind(pool: Pool, tmp_path: Path) -> None:
    """The thread comes all the same; what it says of other things is kept."""
    async with front_door(pool) as door:
        found = await thread(door, pool, TALK)
        lines = await copy(door, f"/v1/threads/{found}/export")
        lines[1] |= {"compaction_model": "gone", "compaction_threshold": 0.5}
        made = await imported(door, tmp_path, lines)
        _, told = await door.ask("GET", f"/v1/threads/{made}")
        assert (told["compaction_model"], told["compaction_threshold"]) == (None, 0.5)
