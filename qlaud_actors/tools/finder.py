"""Search over everything that a caller may use: registered tools, connected vendors, the whole catalogue."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.connection import Connection
from qlaud_actors.connectors.connection_store import usable
from qlaud_actors.db.pool import Rows
from qlaud_actors.embeddings.embedder import Vectors
from qlaud_actors.tools.connector import owner_of
from qlaud_actors.tools.meta import DEFAULT_RESULTS
from qlaud_actors.tools.model import CallContext, Tool, ToolOutcome, Toolset
from qlaud_actors.tools.search import ConnectionState, Match, Nearness, rank, told
from qlaud_actors.tools.search_document import SearchDocument, of_connector, of_tools
from qlaud_actors.tools.search_index import Index
from qlaud_actors.tools.search_intent import Brands, Intent
from qlaud_actors.tools.search_vectors import SearchVectors

INDEXES = 64
"""Accounts' tools of which a process keeps an index."""

_index = lru_cache(maxsize=INDEXES)(Index.of)


def _index_of(tools: Iterable[Tool]) -> Index:
    """Of the account's own tools: the same one for the same tools."""
    return _index(of_tools([tool for tool in tools if tool.kind != "connector"]))


@dataclass(slots=True)
class ToolFinder:
    """Answers `qlaud_search_tools`; one for each process."""

    rows: Rows
    connectors: ConnectorCatalog
    vectors: SearchVectors
    _catalogue: tuple[Index, Brands] | None = None
    _stacked: dict[Index, Vectors] = field(default_factory=dict)

    async def search(
        self, toolset: Toolset, context: CallContext, arguments: Mapping[str, Any]
    ) -> ToolOutcome:
        """`{results: [{name, kind, description, score, …}]}`, best first."""
        usable_now = await usable(self.rows, owner_of(context))
        states = {connection.connector: _state(connection) for connection in usable_now}
        limit = arguments.get("limit") or DEFAULT_RESULTS
        found = await self.find(arguments["intent"], toolset, limit, states)
        return ToolOutcome({"results": [told(match) for match in found]})

    async def find(
        self, text: str, toolset: Toolset, limit: int, states: Mapping[str, ConnectionState]
    ) -> list[Match]:
        """What fits an intent. By words alone while vectors are missing."""
        if self._catalogue is None:
            self._catalogue = await asyncio.to_thread(self._read_catalogue)
        catalogue, brands = self._catalogue
        # Reading a thousand tools takes a fifth of a second, which the event loop does not have.
        own = await asyncio.to_thread(_index_of, toolset.reachable)
        indexes = (catalogue, own)
        texts = [self._vectors_of(index) for index in indexes]
        nearness = None
        if all(vectors is not None for vectors in texts):
            vector = await self.vectors.intent(text)
            known = [vectors for vectors in texts if vectors is not None]
            nearness = Nearness(vector, known) if vector is not None else None
        return rank(Intent.read(text), indexes, limit, brands, states, nearness)

    def _read_catalogue(self) -> tuple[Index, Brands]:
        connectors = self.connectors.connectors.values()
        servers = [entry.connector for entry in self.connectors.hosted.entries.values()]
        documents: list[SearchDocument] = [d for one in connectors for d in of_connector(one)]
        return Index.of(documents), Brands.of([*connectors, *servers])

    def _vectors_of(self, index: Index) -> Vectors | None:
        """The vectors of an index in one piece, kept for as many indexes as there are."""
        if (stacked := self._stacked.get(index)) is not None:
            return stacked
        if (stacked := self.vectors.of(index.texts())) is not None:
            if len(self._stacked) > INDEXES:
                self._stacked.clear()
            self._stacked[index] = stacked
        return stacked


def _state(connection: Connection) -> ConnectionState:
    of_account = connection.owner.end_user_id is None
    return ConnectionState(
        connection.status, connection.connected_as, "account" if of_account else "end_user"
    )
