"""`POST /v1/threads/import` and the command: taken in whole, once, and only where the key may."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
from front_door import front_door

from qlaud_actors import import_tasks
from qlaud_actors.db.pool import Pool
from qlaud_actors.settings import Secret

SAID: list[dict[str, Any]] = [
    {"role": "user", "content": "Hi", "created_at": 1_700_000_000_000},
    {"role": "assistant", "content": [{"type": "text", "text": "Hello"}], "created_at": 1_700_000_001_000},
]


async def test_a_conversation_becomes_a_thread(pool: Pool) -> None:
    """With its messages, their times, and what else was said of it."""
    async with front_door(pool) as door:
        body = {"messages": SAID, "title": "T", "end_user_id": "ann", "external_id": "x:1"}
        status, made = await door.ask("POST", "/v1/threads/import", body)
        assert (status, made["title"], made["end_user_id"]) == (201, "T", "ann")
        assert made["last_active_at"] == 1_700_000_001_000
        _, page = await door.ask("GET", f"/v1/threads/{made['id']}/messages")
        assert [{k: m[k] for k in ("role", "content", "created_at")} for m in page["data"]] == SAID
        assert (await door.ask("DELETE", "/v1/threads/empty"))[1] == {"deleted": 0}


async def test_the_same_again_makes_nothing_new(pool: Pool) -> None:
    """Also ten at once; a deleted thread may be imported anew; of others' threads nothing is shown."""
    async with front_door(pool) as door:
        body = {"messages": SAID, "external_id": "x:1"}
        ann, bob = (await door.mint())["secret"], (await door.mint())["secret"]
        answers = await asyncio.gather(
            *(door.ask("POST", "/v1/threads/import", body, key=ann) for _ in range(10))
        )
        assert sorted(status for status, _ in answers) == [200] * 9 + [201]
        assert len({thread["id"] for _, thread in answers}) == 1
        assert (await door.ask("POST", "/v1/threads/import", body, key=bob))[0] == 409
        first = answers[0][1]["id"]
        assert (await door.ask("DELETE", f"/v1/threads/{first}", key=ann))[0] == 200
        status, again = await door.ask("POST", "/v1/threads/import", body, key=bob)
        assert (status, again["id"] != first) == (201, True)


async def test_the_command_imports_a_file_once(pool: Pool, tmp_path: Path, capsys: Any) -> None:
    """A dry run sends nothing; a second run finds all there; what is refused is said."""
    threads = [{"thread": {"id": f"thread_{n}"}, "messages": SAID} for n in range(5)]
    file = tmp_path / "threads.json"
    file.write_bytes(msgspec.json.encode(threads))
    async with front_door(pool) as door:
        url = str(door.client.make_url("/"))
        target = import_tasks.Target(url, Secret(door.master), "ann")
        assert await import_tasks.run(file, "auto", None) == 0
        assert await pool.fetchval("SELECT count(*) FROM threads") == 0
        for _ in range(2):
            assert await import_tasks.run(file, "auto", target) == 0
        assert "5 imported, 0 there" in (told := capsys.readouterr().out)
        assert "0 imported, 5 there already" in told
        assert await pool.fetchval("SELECT count(*) FROM threads WHERE end_user_id = 'ann'") == 5
        bad = [{"thread": {"id": "t"}, "messages": [{"role": "user", "content": "a\x00"}]}]
        file.write_bytes(msgspec.json.encode(bad))
        assert await import_tasks.run(file, "openai", target) == 1
        assert "NUL" in capsys.readouterr().err
