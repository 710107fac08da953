"""Chroma: the only module that speaks to it.

Over its HTTP API (v2): importing Chroma's client takes 1.6 s of CPU. Chroma holds ids and vectors, no text
and nothing to filter by: a filter costs 14 ms of CPU for 20,000 vectors where the search itself costs 2, so
what a key may see is decided in Postgres.
"""

import base64
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import numpy as np

from qlaud_actors.errors import ServiceUnavailable

API = "/api/v2/tenants/default_tenant/databases/default_database"
TIMEOUT = aiohttp.ClientTimeout(total=30.0, connect=2.0, sock_read=10.0)
JSON = {"content-type": "application/json"}
PAGE = 500

EF_SEARCH, EF_CONSTRUCTION, NEIGHBORS = 200, 200, 32
"""How many candidates a search keeps, how many the placing of a vector keeps, how many are linked with it.
Of 100,000 vectors of messages that are nearly all alike it finds 93 of the nearest 100; with Chroma's own 100
and 16, for the same CPU of a search, 87.
"""

HNSW = {
    "space": "cosine",
    "ef_search": EF_SEARCH,
    "ef_construction": EF_CONSTRUCTION,
    "max_neighbors": NEIGHBORS,
    "sync_threshold": 2_000,
}


class SearchUnavailable(ServiceUnavailable):
    """Search by meaning is not available just now; try again shortly, or search with `mode=text`."""

    code = "search_unavailable"


class CollectionLost(Exception):
    """Chroma does not have this collection (any more)."""


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """One Chroma server."""

    session: aiohttp.ClientSession
    url: str

    async def close(self) -> None:
        """Close all connections."""
        await self.session.close()

    async def alive(self) -> None:
        """Raises SearchUnavailable when it does not answer."""
        await self._ask("GET", "/api/v2/heartbeat")

    async def make_collection(self, index_id: uuid.UUID, account_id: uuid.UUID) -> uuid.UUID:
        """An account's collection in an index; the one that is there if there is one."""
        body = {"name": _name(index_id, account_id), "get_or_create": True, "configuration": {"hnsw": HNSW}}
        made = await self._ask("POST", f"{API}/collections", body)
        return uuid.UUID(made["id"])

    async def collections(self) -> dict[uuid.UUID, str]:
        """All collections that there are: their names by id."""
        found: dict[uuid.UUID, str] = {}
        while True:
            page = await self._ask("GET", f"{API}/collections?limit={PAGE}&offset={len(found)}")
            found |= {uuid.UUID(one["id"]): one["name"] for one in page}
            if len(page) < PAGE:
                return found

    async def drop_index(self, index_id: uuid.UUID) -> None:
        """Delete all collections of an index."""
        for name in (await self.collections()).values():
            if name.startswith(_name(index_id)):
                await self._ask("DELETE", f"{API}/collections/{name}", missing_ok=True)

    async def count(self, collection_id: uuid.UUID) -> int:
        """How many vectors a collection has. Raises CollectionLost."""
        return int(await self._ask("GET", f"{API}/collections/{collection_id}/count"))

    async def upsert(self, collection_id: uuid.UUID, ids: list[str], vectors: Sequence[Any]) -> None:
        """Place vectors, once per id however often. Raises CollectionLost."""
        encoded = [base64.b64encode(np.asarray(one, "<f4").tobytes()).decode() for one in vectors]
        body = {"ids": ids, "embeddings": encoded}
        await self._ask("POST", f"{API}/collections/{collection_id}/upsert", body)

    async def delete(self, collection_id: uuid.UUID, ids: list[str]) -> None:
        """Remove vectors; those that are not there count as removed. Raises CollectionLost."""
        await self._ask("POST", f"{API}/collections/{collection_id}/delete", {"ids": ids})

    async def query(self, collection_id: uuid.UUID, vector: Any, limit: int) -> list[tuple[str, float]]:
        """Ids of the nearest vectors with their cosines, best first. Raises CollectionLost."""
        body = {
            "query_embeddings": [np.asarray(vector, np.float64).round(6).tolist()],
            "n_results": limit,
            "include": ["distances"],
        }
        answer = await self._ask("POST", f"{API}/collections/{collection_id}/query", body)
        found = zip(answer["ids"][0], answer["distances"][0], strict=True)
        return [(one, 1.0 - float(distance)) for one, distance in found]

    async def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, missing_ok: bool = False
    ) -> Any:
        payload = msgspec.json.encode(body) if body is not None else None
        try:
            sent = self.session.request(method, self.url + path, headers=JSON, data=payload)
            async with sent as response:
                answer = await response.read()
            if response.status == 404:
                if missing_ok:
                    return None
                raise CollectionLost
            if response.status >= 300:
                raise SearchUnavailable(f"The vector store answered with {response.status}.")
            return msgspec.json.decode(answer)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise SearchUnavailable from error
        except msgspec.DecodeError as error:
            raise SearchUnavailable("The vector store did not answer with JSON.") from error


def open_vector_index(url: str) -> VectorIndex:
    """A server, for the running event loop."""
    connector = aiohttp.TCPConnector(limit=0)
    session = aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=TIMEOUT, trust_env=False
    )
    return VectorIndex(session, url)


def _name(index_id: uuid.UUID, account_id: uuid.UUID | None = None) -> str:
    """`qlaud-<index>-<account>`, or what the names of an index's collections begin with."""
    return f"qlaud-{index_id.hex}-{account_id.hex if account_id else ''}"
