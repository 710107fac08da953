"""Search over registered tools and connectors, with whose account is connected from a real database."""

import threading
import uuid
from collections.abc import AsyncIterator, Sequence
from functools import lru_cache

import pytest
from acme import ALICE, Bench, running_bench

from qlaud_actors.connectors.store import Vault
from qlaud_actors.db.pool import Pool
from qlaud_actors.embeddings.embedder import Embedder
from qlaud_actors.tools import finder as finder_module
from qlaud_actors.tools.connector import connector_tools
from qlaud_actors.tools.finder import ToolFinder
from qlaud_actors.tools.model import CallContext, Tool, Toolset
from qlaud_actors.tools.search_document import SearchDocument
from qlaud_actors.tools.search_index import Index
from qlaud_actors.tools.search_vectors import SearchVectors

OWN = Tool("tool_1", "crm/find_person", "Look somebody up by name.", {"type": "object"}, "webhook", "read")


@pytest.fixture
async def bench(pool: Pool, vault: Vault) -> AsyncIterator[Bench]:
    """A vendor, and who calls it."""
    async with running_bench(pool, vault) as bench:
        yield bench


@pytest.fixture
async def vectors() -> AsyncIterator[SearchVectors]:
    """With the real model."""
    vectors = SearchVectors(Embedder(), {})
    yield vectors
    await vectors.close()


def context(end_user_id: str | None) -> CallContext:
    return CallContext(ALICE.account_id, "req_1", end_user_id=end_user_id)


async def test_results_say_what_is_connected_and_whose_it_is(bench: Bench, vectors: SearchVectors) -> None:
    """Not connected, one's own, the account's: each caller is told how it stands with him."""
    finder = ToolFinder(bench.pool, bench.catalog, vectors)
    toolset = Toolset((), (OWN, *connector_tools(bench.catalog)))

    async def first(end_user_id: str | None) -> tuple[str, str | None, str | None, str | None]:
        outcome = await finder.search(toolset, context(end_user_id), {"intent": "read an item of acme"})
        best = outcome.output["results"][0]
        assert (best["kind"], best["connector"]) == ("mcp", "acme")
        return best["name"], best["status"], best["connected_as"], best["whose"]

    assert await first("alice") == ("acme/get_item", "not_connected", None, None)
    await bench.connect(ALICE)
    assert (await first("alice"))[1] == "connected"
    assert (await first("alice"))[3] == "end_user"
    assert (await first("bob"))[1:] == ("not_connected", None, None)
    await bench.connect(ALICE.account)
    assert (await first("bob"))[1::2] == ("connected", "account")
    await bench.pool.execute("UPDATE connections SET status = 'expired' WHERE end_user_id = 'alice'")
    assert (await first("alice"))[1] == "expired"


async def test_it_goes_by_words_until_there_are_vectors(bench: Bench, vectors: SearchVectors) -> None:
    """The first search answers at once, by words; meaning alone finds once the vectors are there."""
    finder = ToolFinder(bench.pool, bench.catalog, vectors)
    more = tuple(Tool(f"t{n}", f"tool_{n}", "Other.", {"type": "object"}, "webhook") for n in range(9))
    toolset = Toolset((), (OWN, *more))
    intent = "directory of humans"
    assert await finder.find(intent, toolset, 8, {}) == []
    assert (await finder.find("find a person", toolset, 8, {}))[0].document.name == OWN.name
    await vectors.settled()
    again = [match.document.name for match in await finder.find("whom do I know, by name", toolset, 8, {})]
    assert again[0] == OWN.name
    assert again == [m.document.name for m in await finder.find("whom do I know, by name", toolset, 8, {})]


async def test_a_registered_tool_stands_in_the_place_of_an_action_of_its_name(
    bench: Bench, vectors: SearchVectors
) -> None:
    """The name comes once, and is the account's tool, which needs no connection."""
    finder = ToolFinder(bench.pool, bench.catalog, vectors)
    own = Tool("tool_2", "acme/get_item", "Get an item from our mirror.", {"type": "object"}, "webhook")
    outcome = await finder.search(Toolset((), (own,)), context(str(uuid.uuid4())), {"intent": "get an item"})
    found = [result for result in outcome.output["results"] if result["name"] == "acme/get_item"]
    assert [(result["kind"], result["status"]) for result in found] == [("webhook", None)]


async def test_tools_are_read_beside_the_event_loop(
    bench: Bench, vectors: SearchVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account's tools and the catalogue are indexed in other threads, each once."""
    threads: list[int] = []
    build = Index.of

    def of(documents: Sequence[SearchDocument]) -> Index:
        threads.append(threading.get_ident())
        return build(documents)

    monkeypatch.setattr(Index, "of", of)
    monkeypatch.setattr(finder_module, "_index", lru_cache(of))
    finder = ToolFinder(bench.pool, bench.catalog, vectors)
    many = tuple(Tool(f"t{n}", f"tool_{n}", f"Does {n}.", {"type": "object"}, "webhook") for n in range(300))
    for _ in range(2):
        assert await finder.find("tool 7", Toolset((), many), 8, {})
    assert len(threads) == 2
    assert threading.get_ident() not in threads
