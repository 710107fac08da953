"""Search over a real Chroma and Postgres: what is found, by whom, and what stays when Chroma does not."""

import contextlib
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from front_door import Door, front_door

from benchmarks.search import corpus, messages
from qlaud_actors import embedded, program
from qlaud_actors.conversation import threads
from qlaud_actors.db.pool import Pool
from qlaud_actors.embeddings.embedder import DIMENSIONS, MODEL, Embedder
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.lifecycle import NewKey
from qlaud_actors.probe import wait_until
from qlaud_actors.search import find, store
from qlaud_actors.search.embed import Models, OfflineModel, QueryVectors
from qlaud_actors.search.find import Searcher
from qlaud_actors.search.index import VectorIndex, open_vector_index
from qlaud_actors.search.indexer import Indexer
from qlaud_actors.search.placing import Placer

EMBEDDER = Embedder()


class FreePace:
    """Limits of keys that have none."""

    @contextlib.asynccontextmanager
    async def admit(self, _key: Any) -> AsyncIterator[Any]:
        """Everybody passes."""
        yield type("Admitted", (), {"headers": {}})()


@dataclass
class Stack:
    """A front door with search, and its indexer."""

    door: Door
    pool: Pool
    searcher: Searcher
    indexer: Indexer
    placer: Placer
    keys: dict[str, UUID] = field(default_factory=dict)

    async def thread(self, key: str | None = None, **fields: Any) -> str:
        """A new thread."""
        status, made = await self.door.ask("POST", "/v1/threads", fields, key=key)
        assert status == 201, made
        return str(made["id"])

    async def say(self, thread_id: str, *messages: tuple[str, Any], days_ago: int = 0) -> None:
        """Messages in a finished turn, written as a worker does."""
        turn_id, thread = new_uuid(), UUID(thread_id)
        await self.pool.execute(
            "INSERT INTO turns (id, thread_id, account_id, key_id, number, request, content, request_id,"
            " fingerprint, status) SELECT $1, id, account_id, key_id, last_turn + 1, '{}', 'null', 'r', '',"
            " 'completed' FROM threads WHERE id = $2",
            turn_id,
            thread,
        )
        await self.pool.execute("UPDATE threads SET last_turn = last_turn + 1 WHERE id = $1", thread)
        for role, content in messages:
            seq = await self.pool.fetchval(
                "UPDATE threads SET last_seq = last_seq + 1 WHERE id = $1 RETURNING last_seq", thread
            )
            await self.pool.execute(
                "INSERT INTO messages (thread_id, seq, role, content, turn_id, request_id, created_at)"
                " VALUES ($1, $2, $3, $4, $5, 'r', now() - make_interval(days => $6))",
                thread,
                seq,
                role,
                content,
                turn_id,
                days_ago,
            )
        await self.pool.execute(
            "UPDATE turns SET final_seq = (SELECT max(seq) FROM messages WHERE turn_id = $1"
            " AND role = 'assistant') WHERE id = $1",
            turn_id,
        )

    async def find(self, query: str, path: str = "/v1/search", key: str | None = None, **asked: Any) -> Any:
        """The findings of a search."""
        status, answer = await self.ask(query, path, key, **asked)
        assert status == 200, answer
        return answer["data"]

    async def ask(
        self, query: str, path: str = "/v1/search", key: str | None = None, **asked: Any
    ) -> tuple[int, Any]:
        """Status and JSON of a search."""
        sent = {"x-api-key": self.door.master if key is None else key}
        async with self.door.client.get(path, params={"q": query, **asked}, headers=sent) as response:
            return response.status, await response.json()


@dataclass
class ChromaServer:
    """The Chroma of this module's tests, which may be killed and wiped."""

    program: program.Program
    folder: Path
    process: Any = None

    @property
    def url(self) -> str:
        """Its address, the same after a restart."""
        return self.program.url

    def start(self) -> None:
        """Start it (again)."""
        self.process = program.start(self.program, self.folder / "chroma.log")

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def chroma_server(servers_folder: Path) -> Iterator[ChromaServer]:
    """One Chroma per session; accounts and indexes are fresh in each test."""
    server = ChromaServer(embedded.chroma(servers_folder / "chroma", program.free_port()), servers_folder)
    server.start()
    yield server
    program.stop(server.program, server.process)


@pytest.fixture
async def chroma(chroma_server: ChromaServer) -> ChromaServer:
    """It answers."""
    assert await wait_until(chroma_server.program.ready, 30)
    return chroma_server


@pytest.fixture
async def stack(pool: Pool, chroma: ChromaServer) -> AsyncIterator[Stack]:
    """Everything, over the session's Chroma."""
    async with open_stack(pool, chroma) as stack:
        yield stack


@contextlib.asynccontextmanager
async def open_stack(pool: Pool, chroma: ChromaServer) -> AsyncIterator[Stack]:
    """A front door and an indexer over a Chroma."""
    models = Models(OfflineModel(EMBEDDER), None, None, 0)  # type: ignore[arg-type]
    vectors = open_vector_index(chroma.url)
    searcher = Searcher(pool, models, vectors, QueryVectors())
    placer = Placer(pool, vectors)
    indexer = Indexer(pool, models, placer, None)
    async with (
        vectors.session,
        front_door(pool, searcher=searcher, limits=FreePace()) as door,
    ):
        yield Stack(door, pool, searcher, indexer, placer)


async def test_turns_are_found_by_meaning_and_by_words(stack: Stack) -> None:
    """A paraphrase finds what was said, a word finds where it stands; the best comes first."""
    thread = await stack.thread(end_user_id="ada")
    await stack.say(
        thread,
        ("user", "My kettle arrived broken, can I get my money back?"),
        ("assistant", [{"type": "text", "text": "Of course: the refund for the kettle is on its way."}]),
    )
    await stack.say(thread, ("user", "What is the capital of Portugal?"), ("assistant", "Lisbon."))
    await stack.indexer.sweep()
    found = await stack.find("reimbursement for a damaged appliance")
    assert {one["seq"] for one in found[:2]} == {1, 2}
    assert found[0]["end_user_id"] == "ada"
    assert found[0]["snippet"].startswith("My kettle") or "refund" in found[0]["snippet"]
    assert len(found) == 4
    assert [one["seq"] for one in await stack.find("kettle refund", mode="text")] == [2, 1]
    assert {one["seq"] for one in (await stack.find("kettle", mode="hybrid"))[:2]} == {1, 2}
    assert -1 <= found[-1]["score"] <= found[0]["score"] <= 1


async def test_search_is_as_good_as_promised(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """Recall@10 by meaning is 0.90 or more, that of both no less than that of each."""
    master = await stack.pool.fetchval("SELECT id FROM keys WHERE is_master")
    places = await corpus.write(stack.pool, master, messages.messages())
    await stack.indexer.sweep()
    figures = {}
    for mode in ("semantic", "text", "hybrid"):

        async def find(query: str, mode: str = mode) -> list[corpus.Place]:
            return [(one["thread_id"], one["seq"]) for one in await stack.find(query, mode=mode)]

        figures[mode] = await corpus.recall(messages.queries(), places, find)
    with capsys.disabled():
        sys.stdout.write("\n" + corpus.table(figures) + "\n")
    assert figures["semantic"]["all"] >= 0.90
    assert figures["hybrid"]["all"] >= max(figures["semantic"]["all"], figures["text"]["all"])


def test_queries_without_a_shared_word_share_none() -> None:
    """The hard third of the queries has no word in common with the messages that it should find."""
    parts = messages.situations()
    shared = {
        situation[4]: words
        for situation in parts
        if (words := messages.content_words(situation[4]) & messages.content_words(" ".join(situation[:2])))
    }
    assert shared == {}
    assert len(messages.messages()) >= 2_000
    assert len(messages.queries()) >= 200


REFUND = (
    ("user", "My kettle arrived broken, can I get my money back?"),
    ("assistant", "The refund is on its way."),
)
MODES = ("semantic", "text", "hybrid")


async def seqs(stack: Stack, query: str = "kettle refund", **asked: Any) -> dict[str, set[tuple[str, int]]]:
    """What each mode finds."""
    found = {}
    for mode in MODES:
        data = await stack.find(query, mode=mode, **asked)
        found[mode] = {(one["thread_id"], one["seq"]) for one in data}
    return found


async def test_a_key_finds_what_it_may_read_and_nothing_else(stack: Stack) -> None:
    """Other accounts, other keys and other end users are never in an answer, in no mode; admins see all."""
    door = stack.door
    ada, bob = [(await door.mint(end_user_id=name))["secret"] for name in ("ada", "bob")]
    loose = (await door.mint())["secret"]
    wide = (await door.mint(thread_access="account"))["secret"]
    account = new_uuid()
    await stack.pool.execute("INSERT INTO accounts (id, name) VALUES ($1, 'other')", account)
    _, stranger = await lifecycle.mint(stack.pool, account, NewKey("k", scope="admin"))
    threads_of = {
        "ada": await stack.thread(ada),
        "loose": await stack.thread(loose, end_user_id="ada"),
        "bob": await stack.thread(bob),
        "nobody": await stack.thread(),
        "stranger": await stack.thread(stranger.reveal()),
    }
    for thread in threads_of.values():
        await stack.say(thread, *REFUND)
    await stack.indexer.sweep()
    sees = {
        ada: {"ada", "loose"},
        loose: {"loose"},
        bob: {"bob"},
        wide: {"ada", "loose", "bob", "nobody"},
        stranger.reveal(): {"stranger"},
    }
    for key, names in sees.items():
        for mode, found in (await seqs(stack, key=key, limit=50)).items():
            assert {thread for thread, _ in found} == {threads_of[name] for name in names}, mode
        for name, thread in threads_of.items():
            status, _ = await stack.ask("kettle", f"/v1/threads/{thread}/search", key)
            assert status == (200 if name in names else 404)
    by_user = await seqs(stack, end_user_id="ada", limit=50)
    for found in by_user.values():
        assert {thread for thread, _ in found} == {threads_of["ada"], threads_of["loose"]}
    assert await seqs(stack, key=bob, end_user_id="ada") == {mode: set() for mode in MODES}


async def test_filters_narrow_and_pages_go_on(stack: Stack) -> None:
    """Role, time and thread narrow every mode; pages neither repeat nor leave out."""
    old, new = await stack.thread(), await stack.thread()
    await stack.say(old, *REFUND, days_ago=30)
    for _ in range(6):
        await stack.say(new, *REFUND)
    await stack.indexer.sweep()
    week_ago = (time.time() - 7 * 86400) * 1000
    for found in (await seqs(stack, role="user", limit=50)).values():
        assert found == {(old, 1), *((new, seq) for seq in range(1, 12, 2))}
    for found in (await seqs(stack, before=int(week_ago), limit=50)).values():
        assert found == {(old, 1), (old, 2)}
    for found in (await seqs(stack, after=int(week_ago), limit=50)).values():
        assert {thread for thread, _ in found} == {new}
    for found in (await seqs(stack, path=f"/v1/threads/{old}/search", limit=50)).values():
        assert found == {(old, 1), (old, 2)}
    for mode in MODES:
        pages, offset = [], 0
        while offset is not None:
            _, page = await stack.ask("kettle refund", mode=mode, limit=5, offset=offset)
            pages += [(one["thread_id"], one["seq"]) for one in page["data"]]
            assert page["has_more"] == (page["next_offset"] is not None)
            offset = page["next_offset"]
        assert len(pages) == len(set(pages)) == 14


async def test_filters_are_exact_beyond_what_chroma_tells(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rare match far from the nearest vectors is found, in a scope too large to compare one by one."""
    monkeypatch.setattr(find, "FEW", 0)
    monkeypatch.setattr(find, "WIDE", 2)
    monkeypatch.setattr(find, "WIDER", 3)
    near, rare = await stack.thread(), await stack.thread(end_user_id="rare")
    await stack.say(near, *REFUND, *REFUND, *REFUND)
    await stack.say(rare, ("user", "Good morning!"))
    await stack.indexer.sweep()
    found = await stack.find("kettle refund", end_user_id="rare", limit=1)
    assert [one["thread_id"] for one in found] == [rare]
    assert len(await stack.find("kettle refund", limit=1)) == 1


async def test_only_turns_and_last_answers_are_indexed(stack: Stack) -> None:
    """Calls of tools, their results and pictures are not found; an answer that a turn had to end with is."""
    call = {"type": "tool_use", "id": "t", "name": "x", "input": {"kettle": 1}}
    thread = await stack.thread()
    await stack.say(
        thread,
        ("user", [{"type": "image", "source": {}}, {"type": "text", "text": "Look at the kettle\u0000"}]),
        ("assistant", [{"type": "text", "text": "Let me look up kettle prices."}, call]),
        ("user", [{"type": "tool_result", "tool_use_id": "t", "content": "kettle"}]),
        ("assistant", [{"type": "text", "text": "A kettle costs 20."}]),
    )
    last = [{"type": "text", "text": "kettle…"}, call]
    await stack.say(thread, ("user", "And a big kettle?"), ("assistant", last))
    await stack.indexer.sweep()
    for found in (await seqs(stack, "kettle")).values():
        assert {seq for _, seq in found} == {1, 4, 5, 6}
    assert await stack.pool.fetchval("SELECT count(*) FROM search_queue") == 0


async def test_long_messages_are_found_by_their_middle(stack: Stack) -> None:
    """What is said deep in a long message finds it, once, with the place around it as snippet."""
    filler = "The committee noted the agenda and moved on to the next item without remarks. " * 40
    thread = await stack.thread()
    await stack.say(thread, ("user", f"{filler}The penguin colony moved to Punta Tombo. {filler}"))
    await stack.indexer.sweep()
    (found,) = await stack.find("seabirds relocated")
    assert "penguin" in found["snippet"]
    (found,) = await stack.find("penguin", mode="text")
    assert "Punta Tombo" in found["snippet"]
    assert 200 <= len(found["snippet"]) <= 242
    assert found["snippet"].startswith("…")
    assert found["snippet"].endswith("…")


async def test_a_deleted_thread_is_gone_at_once_and_leaves_chroma(stack: Stack) -> None:
    """Not found from the moment of its deletion; its vectors are removed from Postgres and from Chroma."""
    kept, gone = await stack.thread(), await stack.thread()
    for thread in (kept, gone):
        await stack.say(thread, *REFUND)
    await stack.indexer.sweep()
    collection = await stack.pool.fetchval("SELECT collection_id FROM search_collections")
    assert await stack.placer.chroma.count(collection) == 4
    await stack.pool.execute("UPDATE threads SET deleted_at = now() WHERE id = $1", UUID(gone))
    for found in (await seqs(stack)).values():
        assert {thread for thread, _ in found} == {kept}
    await threads.purge(stack.pool, UUID(gone))
    assert await stack.pool.fetchval("SELECT count(*) FROM search_vectors") == 2
    assert await stack.pool.fetchval("SELECT count(*) FROM search_words") == 2
    assert await store.untold(stack.pool) == 2
    await stack.indexer.sweep()
    assert await store.untold(stack.pool) == 0
    assert await stack.placer.chroma.count(collection) == 2


async def test_what_is_deleted_while_it_is_placed_does_not_come_back(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is deleted before its vectors arrive in Chroma leaves it again."""
    thread = await stack.thread()
    await stack.say(thread, *REFUND)
    upsert = VectorIndex.upsert

    async def slow(self: VectorIndex, *arguments: Any) -> None:
        await stack.pool.execute("UPDATE threads SET deleted_at = now() WHERE id = $1", UUID(thread))
        await threads.purge(stack.pool, UUID(thread))
        await stack.placer.forget()
        await upsert(self, *arguments)

    monkeypatch.setattr(VectorIndex, "upsert", slow)
    await stack.indexer.sweep()
    collection = await stack.pool.fetchval("SELECT collection_id FROM search_collections")
    assert await stack.placer.chroma.count(collection) == 2
    await stack.indexer.sweep()
    assert await stack.placer.chroma.count(collection) == 0
    assert await store.untold(stack.pool) == 0


async def test_another_index_is_built_beside_and_takes_over(stack: Stack) -> None:
    """A rebuilt index answers once it is complete; the old one serves until then and is removed."""
    thread = await stack.thread()
    await stack.say(thread, *REFUND)
    await stack.indexer.sweep()
    old = await stack.pool.fetchval("SELECT id FROM search_indexes WHERE kind = 'vectors'")
    await store.begin_index(stack.pool, MODEL, DIMENSIONS)
    await stack.say(thread, ("user", "A second kettle question"))
    assert len(await stack.find("kettle")) == 2
    await stack.indexer.sweep()
    await stack.indexer.sweep()
    serving = await stack.pool.fetchval("SELECT id FROM search_indexes WHERE kind = 'vectors'")
    assert serving != old
    assert len(await stack.find("kettle")) == 3
    names = (await stack.placer.chroma.collections()).values()
    assert not any(old.hex in name for name in names)


async def test_chroma_killed_and_wiped_is_caught_up_with(pool: Pool, servers_folder: Path) -> None:
    """Without Chroma search is a clear 503, by words it goes on; wiped, it is filled again."""
    folder = servers_folder / "wiped"
    server = ChromaServer(embedded.chroma(folder, program.free_port()), servers_folder)
    server.start()
    try:
        assert await wait_until(server.program.ready, 30)
        async with open_stack(pool, server) as stack:
            thread, gone = await stack.thread(), await stack.thread()
            await stack.say(thread, *REFUND)
            await stack.say(gone, *REFUND)
            await stack.indexer.sweep()
            assert len(await stack.find("kettle")) == 4
            server.kill()
            for mode in ("semantic", "hybrid"):
                status, answer = await stack.ask("kettle", mode=mode)
                assert (status, answer["error"]["code"]) == (503, "search_unavailable")
            status, _ = await stack.ask("kettle", f"/v1/threads/{thread}/search")
            assert status == 503
            await stack.say(thread, ("user", "The toaster is broken as well"))
            await stack.indexer.sweep()
            assert len(await stack.find("toaster", mode="text")) == 1
            await threads.purge(pool, UUID(gone))
            await pool.execute("UPDATE threads SET deleted_at = now() WHERE id = $1", UUID(gone))
            shutil.rmtree(folder)
            server.start()
            assert await wait_until(server.program.ready, 30)
            stack.placer._away_until = stack.placer._looked_at = 0
            await stack.indexer.sweep()
            await stack.indexer.sweep()
            found = await stack.find("kitchen appliance")
            assert {(one["thread_id"], one["seq"]) for one in found} == {(thread, seq) for seq in (1, 2, 3)}
            assert await store.untold(pool) == 0
    finally:
        program.stop(server.program, server.process)
