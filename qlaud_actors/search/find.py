"""Finds messages: by meaning, by words, or by both. What a key may see is decided in Postgres, always.

A scope of few messages is compared with the query one by one, which is exact; in a larger one Chroma is asked
for the nearest of the account, and what the key does not see is left out.
"""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qlaud_actors.conversation.threads import sees_account
from qlaud_actors.db.pool import Pool
from qlaud_actors.embeddings.embedder import Vectors
from qlaud_actors.keys.model import ApiKey
from qlaud_actors.search.embed import Models, QueryVectors
from qlaud_actors.search.index import CollectionLost, SearchUnavailable, VectorIndex
from qlaud_actors.search.model import (
    Finding,
    Mode,
    Place,
    Role,
    Scored,
    best_of,
    chunks,
    fuse,
    searched_text,
    snippet,
    spelled,
)
from qlaud_actors.search.placing import note_lost
from qlaud_actors.search.store import QUERIES, columns, matrix_of, parse_chunk_id

FEW = 2_000
"""Messages that are compared one by one: 1.5 MB of vectors, 5 ms."""

MANY = 20_000
"""The same when Chroma's nearest hold too few that the filters let through."""

WIDE, WIDER = 50, 2_000
"""How many of the nearest Chroma is asked for, at least and at most."""

RANKED = 1_000
"""Of the messages of a large scope that have a word, so many are ranked: 10 ms."""

FUSED = 50
"""Places of each ranking that are put together."""

REBUILDING = "The search index is being rebuilt; try again in a minute, or search with `mode=text`."


@dataclass(frozen=True, slots=True)
class Wanted:
    """One search. Times in ms since the epoch, exclusive."""

    query: str
    mode: Mode = "semantic"
    limit: int = 10
    offset: int = 0
    thread_id: uuid.UUID | None = None
    end_user_id: str | None = None
    role: Role | None = None
    after_ms: int | None = None
    before_ms: int | None = None

    @property
    def depth(self) -> int:
        """How many findings decide what the page is, and whether there is another one."""
        return self.offset + self.limit + 1

    @property
    def filtered(self) -> bool:
        """Whether it is not about everything that the key sees."""
        narrow = (self.thread_id, self.end_user_id, self.role, self.after_ms, self.before_ms)
        return any(one is not None for one in narrow)


@dataclass(frozen=True, slots=True)
class Page:
    """Findings, best first."""

    findings: list[Finding]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Searcher:
    """Searches for the callers of one process."""

    pool: Pool
    models: Models
    chroma: VectorIndex | None
    vectors: QueryVectors

    async def close(self) -> None:
        """Close the connections to Chroma."""
        if self.chroma is not None:
            await self.chroma.close()

    async def find(self, key: ApiKey, wanted: Wanted) -> Page:
        """A page of what was found. Raises SearchUnavailable; BudgetRefused where the model costs."""
        search = _Search(self, key, wanted, await self._few(key, wanted))
        if wanted.mode == "text":
            found = await search.by_words(wanted.depth)
        elif wanted.mode == "semantic":
            found = await search.by_meaning(wanted.depth)
        else:
            deep = max(FUSED, wanted.depth)
            semantic, text = await asyncio.gather(search.by_meaning(deep), search.by_words(deep))
            found = fuse(semantic, text)
        page = found[wanted.offset : wanted.offset + wanted.limit]
        return Page(await self._shown(page, wanted.query), len(found) >= wanted.depth)

    async def _few(self, key: ApiKey, wanted: Wanted) -> bool:
        """Whether the scope has so few messages that each of them is looked at."""
        if _whole_account(key, wanted):
            return False
        return bool(await self.pool.fetchval(QUERIES.scope_size, *_scope(key, wanted)) <= FEW)

    async def _shown(self, page: Sequence[Scored], query: str) -> list[Finding]:
        """Messages with their snippets; one that was deleted just now is missing."""
        rows = await self.pool.fetch(QUERIES.found_messages, *columns([one.place for one in page]))
        by_place = {Place(row["thread_id"], row["seq"]): row for row in rows}
        return [_finding(one, row, query) for one in page if (row := by_place.get(one.place))]


@dataclass(frozen=True, slots=True)
class _Search:
    """One search of one key."""

    searcher: Searcher
    key: ApiKey
    wanted: Wanted
    few: bool

    async def by_words(self, depth: int) -> list[Scored]:
        """Best first, by rank (0 to 1)."""
        given = (*self._scope_and_filters(), spelled(self.wanted.query), depth)
        if self.few:
            rows = await self.searcher.pool.fetch(QUERIES.words_of_few, *given)
        else:
            rows = await self.searcher.pool.fetch(QUERIES.words_in_scope, *given, RANKED)
        return [Scored(Place(row["thread_id"], row["seq"]), row["score"]) for row in rows]

    async def by_meaning(self, depth: int) -> list[Scored]:
        """Best first, by cosine (-1 to 1). Raises SearchUnavailable."""
        chroma, pool = self.searcher.chroma, self.searcher.pool
        if chroma is None:
            raise SearchUnavailable("There is no vector store here (CHROMA_URL): search with `mode=text`.")
        index = await pool.fetchrow(QUERIES.serving_index, self.key.account_id)
        if index is None or index["lost"]:
            raise SearchUnavailable(REBUILDING)
        if index["collection_id"] is None:
            await chroma.alive()
            return []
        model = self.searcher.models.of(index["model"], index["dimensions"])
        vector = await self.searcher.vectors.of(model, self.wanted.query, self.key)
        if self.few:
            # The answer must not depend on how many threads a key has: without Chroma there is none.
            compared = self._one_by_one(index["id"], vector, FEW * 4, depth)
            _, found = await asyncio.gather(chroma.alive(), compared)
            return found
        try:
            return await self._nearest(chroma, index, vector, depth)
        except CollectionLost:
            await note_lost(pool, index["collection_id"])
            raise SearchUnavailable(REBUILDING) from None

    async def _one_by_one(self, index_id: uuid.UUID, vector: Any, most: int, depth: int) -> list[Scored]:
        """Every vector of the scope, compared here."""
        rows = await self.searcher.pool.fetch(
            QUERIES.vectors_in_scope, *self._scope_and_filters(), index_id, most
        )
        if not rows:
            return []
        stored = [row["vectors"] for row in rows]
        scores = _cosines(matrix_of(stored, len(vector)), vector)
        where = [(row, at) for row in rows for at in range(len(row["seqs"]))]
        best: dict[Place, Scored] = {}
        for one in np.argsort(-scores):
            row, at = where[one]
            place = Place(row["thread_id"], row["seqs"][at])
            best.setdefault(place, Scored(place, float(scores[one]), row["chunks"][at]))
            if len(best) == depth:
                break
        return list(best.values())

    async def _nearest(self, chroma: VectorIndex, index: Any, vector: Any, depth: int) -> list[Scored]:
        """The nearest of the account that are in scope; further ones when that leaves too few."""
        everything = _whole_account(self.key, self.wanted)
        for most in (max(WIDE, 2 * depth), WIDER):
            near = await chroma.query(index["collection_id"], vector, most)
            ranked = best_of((*parse_chunk_id(one), score) for one, score in near)
            found = ranked if everything else await self._in_scope(ranked)
            if len(found) >= depth or len(near) < most:
                return found[:depth]
        return found if everything else await self._one_by_one(index["id"], vector, MANY, depth)

    async def _in_scope(self, ranked: list[Scored]) -> list[Scored]:
        places = [one.place for one in ranked]
        rows = await self.searcher.pool.fetch(
            QUERIES.keep_in_scope, *self._scope_and_filters(), *columns(places)
        )
        seen = {Place(row["thread_id"], row["seq"]) for row in rows}
        return [one for one in ranked if one.place in seen]

    def _scope_and_filters(self) -> tuple[Any, ...]:
        """Whose threads, and which of their messages."""
        wanted = self.wanted
        filters = wanted.role, _seconds(wanted.after_ms), _seconds(wanted.before_ms)
        return (*_scope(self.key, wanted), *filters)


def _cosines(matrix: Vectors, vector: Any) -> Any:
    return np.clip(matrix @ np.asarray(vector, np.float32), -1.0, 1.0)


def _whole_account(key: ApiKey, wanted: Wanted) -> bool:
    """Whether it is about every message of the account: then there is nothing to leave out."""
    return sees_account(key) and not wanted.filtered


def _scope(key: ApiKey, wanted: Wanted) -> tuple[Any, ...]:
    """Whose threads."""
    everything = sees_account(key)
    return key.account_id, everything, key.id, key.end_user_id, wanted.end_user_id, wanted.thread_id


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


def _finding(scored: Scored, row: Any, query: str) -> Finding:
    text = searched_text(row["role"], row["content"], last=True)
    start = chunks(text)[scored.chunk].start if scored.chunk else 0
    return Finding(
        scored.place.thread_id,
        scored.place.seq,
        row["role"],
        round(scored.score, 6),
        snippet(text, query, start),
        row["created_at_ms"],
        row["end_user_id"],
    )
