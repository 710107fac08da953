"""Rows of search: indexes, their queue, and forgetting."""

import uuid
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from qlaud_actors.db.pool import Connection, Pool, Record, Rows
from qlaud_actors.db.queries import load_queries
from qlaud_actors.embeddings.embedder import Vectors
from qlaud_actors.ids import new_uuid
from qlaud_actors.search.model import Chunk, Place, spelled

QUERIES = load_queries("qlaud_actors.search")

CLAIM_SECONDS = 60.0
"""Nobody else takes a message for so long: more than a batch needs to be embedded and placed."""

STORED = np.dtype("<f2")
"""How the numbers of a vector are kept: half the bytes, and cosines stay within 0.001."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index that messages are queued for."""

    id: uuid.UUID
    kind: Literal["words", "vectors"]
    model: str
    dimensions: int
    state: Literal["building", "serving"]
    filled: bool


@dataclass(frozen=True, slots=True)
class Claimed:
    """A queued message; its content only when it is still to be read."""

    place: Place
    account_id: uuid.UUID
    stage: Literal["read", "place"]
    role: str
    content: Any
    question: Any
    """Of an answer: what it answers."""
    alive: bool
    last: bool
    has_vectors: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk of a message with its vector."""

    place: Place
    chunk: int
    vector: "np.ndarray[Any, np.dtype[np.float32]]"

    @property
    def id(self) -> str:
        """As Chroma knows it."""
        return chunk_id(self.place, self.chunk)


def chunk_id(place: Place, chunk: int) -> str:
    """The name of a chunk in Chroma."""
    return f"{place.thread_id}:{place.seq}:{chunk}"


def parse_chunk_id(text: str) -> tuple[Place, int]:
    """Its parts."""
    thread_id, seq, chunk = text.split(":")
    return Place(uuid.UUID(thread_id), int(seq)), int(chunk)


async def living(rows: Rows) -> list[Index]:
    """The indexes that are built or serve."""
    names = Index.__dataclass_fields__
    return [Index(**{name: row[name] for name in names}) for row in await rows.fetch(QUERIES.living_indexes)]


async def begin_index(pool: Pool, model: str, dimensions: int) -> None:
    """An index of vectors for a model, unless one is being built: it serves at once if none does.

    Messages wait for a moment, so that each is either queued by its own transaction or found below.
    """
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(QUERIES.block_new_messages)
        await connection.execute(QUERIES.insert_index, new_uuid(), model, dimensions)
    await fill(pool)


async def fill(pool: Pool) -> None:
    """Queue what was written before an index; may die anywhere and be done again."""
    for index in await living(pool):
        if not index.filled:
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute(QUERIES.queue_old_messages, index.id)
                await connection.execute(QUERIES.mark_filled, index.id)


async def switch(pool: Pool, building: uuid.UUID) -> bool:
    """Let an index serve if it lacks nothing; the one before is retired. Returns whether it does."""
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(QUERIES.retire_serving, building) is None:
            return False
        await connection.execute(QUERIES.serve_index, building)
        return True


async def give_up(rows: Rows, index_id: uuid.UUID) -> None:
    """Build an unfinished index no further."""
    await rows.execute(QUERIES.retire_building, index_id)


async def queue_length(rows: Rows, index_id: uuid.UUID) -> int:
    """How many messages an index lacks."""
    return int(await rows.fetchval(QUERIES.queue_length, index_id))


@dataclass(frozen=True, slots=True)
class Figures:
    """How far an index is. `failing` were tried and are tried again; `lost` are collections."""

    id: uuid.UUID
    kind: str
    model: str
    dimensions: int
    state: str
    entries: int
    queued: int
    failing: int
    oldest_seconds: float
    lost: int


async def figures(rows: Rows) -> list[Figures]:
    """How far each index is."""
    names = Figures.__dataclass_fields__
    return [Figures(**{name: row[name] for name in names}) for row in await rows.fetch(QUERIES.index_figures)]


async def claim(rows: Rows, index: Index, claim_id: uuid.UUID, limit: int, *, placing: bool) -> list[Claimed]:
    """Take messages that an index lacks; without `placing` only those whose text is to be read."""
    found = await rows.fetch(QUERIES.claim_messages, index.id, claim_id, CLAIM_SECONDS, limit, placing)
    return [_claimed(row) for row in found]


def _claimed(row: Record) -> Claimed:
    return Claimed(
        Place(row["thread_id"], row["seq"]),
        row["account_id"],
        row["stage"],
        row["role"],
        row["content"],
        row["question"],
        row["alive"],
        bool(row["last"]),
        row["has_vectors"],
    )


async def lock_claim(connection: Connection, claim_id: uuid.UUID, places: list[Place]) -> set[Place]:
    """Which messages of a claim are still there to be written for; they stay for this transaction."""
    threads = list({place.thread_id for place in places})
    rows = await connection.fetch(QUERIES.lock_claim, claim_id, threads)
    return {Place(row["thread_id"], row["seq"]) for row in rows}.intersection(places)


async def put_words(rows: Rows, texts: dict[Place, str]) -> None:
    """Index texts by their words."""
    await rows.execute(QUERIES.put_words, *columns(texts), list(map(spelled, texts.values())))


async def put_vectors(rows: Rows, index_id: uuid.UUID, pieces: list[Piece]) -> None:
    """Keep vectors."""
    places = [piece.place for piece in pieces]
    numbers = [piece.chunk for piece in pieces]
    data = [piece.vector.astype(STORED).tobytes() for piece in pieces]
    await rows.execute(QUERIES.put_vectors, index_id, *columns(places), numbers, data)


async def vectors_of(rows: Rows, index_id: uuid.UUID, places: list[Place]) -> list[Piece]:
    """The vectors of some messages."""
    found = await rows.fetch(QUERIES.vectors_of, index_id, *columns(places))
    if not found:
        return []
    stored = [row["vector"] for row in found]
    matrix = matrix_of(stored, len(stored[0]) // STORED.itemsize)
    return [
        Piece(Place(row["thread_id"], row["seq"]), row["chunk"], vector)
        for row, vector in zip(found, matrix, strict=True)
    ]


async def finish(rows: Rows, claim_id: uuid.UUID, places: list[Place]) -> None:
    """These messages of a claim are done."""
    if places:
        await rows.execute(QUERIES.finish_messages, claim_id, *columns(places))


def matrix_of(stored: list[bytes], dimensions: int) -> Vectors:
    """Kept vectors, one or more in each piece, as one row each."""
    return np.frombuffer(b"".join(stored), STORED).reshape(-1, dimensions).astype(np.float32)


def columns(places: Any) -> tuple[list[uuid.UUID], list[int]]:
    """Places as two columns of a statement."""
    return [place.thread_id for place in places], [place.seq for place in places]


def pieces_of(place: Place, texts: list[Chunk], vectors: Vectors) -> list[Piece]:
    """Chunks of a message with the vectors that were computed for them."""
    return [Piece(place, number, vectors[number]) for number in range(len(texts))]


async def untold(rows: Rows, account_id: uuid.UUID | None = None) -> int:
    """How many chunks Chroma has not been told to forget yet."""
    return int(await rows.fetchval(QUERIES.untold, account_id))
