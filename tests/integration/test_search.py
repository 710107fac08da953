"""Search over a real Chroma and Postgres: what is found, by whom, and what stays when Chroma does not."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from front_door import Door, front_door

from qlaud_actors import embedded, program
from qlaud_actors.db.pool import Pool
from qlaud_actors.embeddings.embedder import Embedder
from qlaud_actors.ids import new_uuid
from qlaud_actors.outbound.client import Client, open_client
from qlaud_actors.probe import wait_until
from qlaud_actors.search.embed import Models, OfflineModel, QueryVectors
from qlaud_actors.search.find import Searcher
from qlaud_actors.search.index import VectorIndex
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
async def client() -> AsyncIterator[Client]:
    """What speaks to Chroma."""
    client = open_client()
    yield client
    await client.close()


@pytest.fixture
async def stack(pool: Pool, client: Client, chroma: ChromaServer) -> AsyncIterator[Stack]:
    """Everything, over an index that is ready."""
    models = Models(OfflineModel(EMBEDDER), None, None, 0)  # type: ignore[arg-type]
    searcher = Searcher(pool, models, VectorIndex(client, chroma.url), QueryVectors())
    placer = Placer(pool, VectorIndex(client, chroma.url))
    indexer = Indexer(pool, models, placer, None)
    async with front_door(pool, searcher=searcher, limits=FreePace()) as door:
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
    assert [one["seq"] for one in await stack.find("kettle refund", mode="text")] == [2]
    assert {one["seq"] for one in (await stack.find("kettle", mode="hybrid"))[:2]} == {1, 2}
    assert -1 <= found[-1]["score"] <= found[0]["score"] <= 1
