"""Brings vectors from Postgres to Chroma, and what was deleted out of it; notices when Chroma lost them."""

import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field

from qlaud_actors import log
from qlaud_actors.db.pool import Pool
from qlaud_actors.search.index import CollectionLost, SearchUnavailable, VectorIndex
from qlaud_actors.search.model import Place, batches
from qlaud_actors.search.store import QUERIES, Index, Piece, chunk_id, columns

logger = log.get_logger(__name__)

UPSERT = 500
FORGET = 500
TOLD_AGAIN_SECONDS = 300.0
"""Longer than any process keeps a claim: what it placed late is then removed, too."""

LOOK_SECONDS = 10.0
PAUSE_SECONDS = 1.0


@dataclass(slots=True)
class Placer:
    """What one process has to do with Chroma."""

    pool: Pool
    chroma: VectorIndex
    _away_until: float = 0.0
    _looked_at: float = 0.0
    _collections: dict[tuple[uuid.UUID, uuid.UUID], uuid.UUID] = field(default_factory=dict)

    @property
    def away(self) -> bool:
        """Chroma did not answer a moment ago."""
        return time.monotonic() < self._away_until

    async def place(self, index: Index, account_id: uuid.UUID, pieces: list[Piece]) -> bool:
        """Put vectors into the account's collection; False when Chroma is away or has lost it."""
        collection_id = None
        try:
            collection_id = await self._collection(index.id, account_id)
            for batch in batches(pieces, UPSERT):
                ids, vectors = [one.id for one in batch], [one.vector for one in batch]
                await self.chroma.upsert(collection_id, ids, vectors)
        except SearchUnavailable as error:
            self._is_away(error)
            return False
        except CollectionLost:
            if collection_id:
                await self.lost(collection_id)
            return False
        finally:
            # Whatever came of it: what was deleted while it was on its way has to leave again.
            places, chunks = [one.place for one in pieces], [one.chunk for one in pieces]
            await self.pool.execute(QUERIES.forget_strays, index.id, account_id, *columns(places), chunks)
        return True

    async def forget(self) -> bool:
        """Tell Chroma what to forget; whether there may be more."""
        rows = await self.pool.fetch(QUERIES.forgotten_due, FORGET)
        groups: dict[uuid.UUID, list[str]] = defaultdict(list)
        for row in rows:
            if row["collection_id"] and not row["back"]:
                place = Place(row["thread_id"], row["seq"])
                groups[row["collection_id"]].append(chunk_id(place, row["chunk"]))
        try:
            for collection_id, ids in groups.items():
                await self._forget(collection_id, ids)
        except SearchUnavailable as error:
            self._is_away(error)
            return False
        nothing = [row["id"] for row in rows if row["back"]]
        told = [row["id"] for row in rows if not row["back"]]
        await self.pool.execute(QUERIES.told_twice, nothing, True)
        await self.pool.execute(QUERIES.told_twice, told, False)
        await self.pool.execute(QUERIES.told_once, told, TOLD_AGAIN_SECONDS)
        return len(rows) == FORGET

    async def _forget(self, collection_id: uuid.UUID, ids: list[str]) -> None:
        try:
            await self.chroma.delete(collection_id, ids)
        except CollectionLost:
            await self.lost(collection_id)  # so they are gone

    async def look(self) -> None:
        """See that Chroma has every collection that it should have; now and then."""
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        known = [row["collection_id"] for row in await self.pool.fetch(QUERIES.known_collections)]
        if not known:
            return
        try:
            there = await self.chroma.collections()
        except SearchUnavailable as error:
            self._is_away(error)
            return
        for collection_id in known:
            if collection_id not in there:
                await self.lost(collection_id)

    async def lost(self, collection_id: uuid.UUID) -> None:
        """Queue everything that was in a collection, once however many notice that it is gone."""
        self._collections = {key: one for key, one in self._collections.items() if one != collection_id}
        await note_lost(self.pool, collection_id)

    async def drop_retired(self) -> None:
        """Remove indexes that were replaced: collections first, so that nothing is left when this dies."""
        for row in await self.pool.fetch(QUERIES.retired_indexes):
            try:
                await self.chroma.drop_index(row["id"])
            except SearchUnavailable as error:
                self._is_away(error)
                return
            await self.pool.execute(QUERIES.delete_index, row["id"])

    async def _collection(self, index_id: uuid.UUID, account_id: uuid.UUID) -> uuid.UUID:
        key = index_id, account_id
        if key not in self._collections:
            found = await self.pool.fetchval(QUERIES.get_collection, *key)
            if found is None:
                made = await self.chroma.make_collection(*key)
                await self.pool.execute(QUERIES.note_collection, *key, made)
                found = await self.pool.fetchval(QUERIES.get_collection, *key)
            self._collections[key] = found or made
        return self._collections[key]

    def _is_away(self, error: SearchUnavailable) -> None:
        if not self.away:
            logger.warning("vector_store_away", reason=error.message)
        self._away_until = time.monotonic() + PAUSE_SECONDS


async def note_lost(pool: Pool, collection_id: uuid.UUID) -> None:
    """Chroma has lost a collection: its vectors are queued to be placed again, in one transaction."""
    async with pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(QUERIES.lose_collection, collection_id)
        if row is not None:
            await connection.execute(QUERIES.queue_lost, row["index_id"], row["account_id"])
            logger.warning("vector_collection_lost", account_id=str(row["account_id"]))
