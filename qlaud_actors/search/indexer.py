"""Works the queue of messages off: by words, and by meaning. One for each worker process.

What is queued is the truth; a wake-up only makes it sooner. A batch is claimed, computed, written for what
is still there of it, and finished. It may die between any two lines: the claim ends and it is done again.
"""

import asyncio
import uuid
from collections import defaultdict
from dataclasses import dataclass, field

from qlaud_actors import log
from qlaud_actors.db.pool import Pool
from qlaud_actors.errors import InvalidKey, QlaudError
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.model import ApiKey
from qlaud_actors.search import store
from qlaud_actors.search.embed import Models, VectorModel
from qlaud_actors.search.model import Chunk, Place, chunks, in_context, searched_text
from qlaud_actors.search.placing import Placer
from qlaud_actors.search.store import QUERIES, Claimed, Index, Piece
from qlaud_actors.settings import Secret

logger = log.get_logger(__name__)

BATCH = 32
"""Messages claimed at once."""

CHUNKS = 128
"""Embedded for one claim, and what a last long message has beyond: some ten seconds on one core."""

RETRY_SECONDS = 2.0
"""After a failure, doubled with each one."""


@dataclass(slots=True)
class Indexer:
    """Indexes messages in this process."""

    pool: Pool
    models: Models
    placer: Placer | None
    """None where no Chroma is configured: then only words are indexed."""
    master_key: Secret | None
    """Pays for a model that costs."""
    _running: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self) -> None:
        """Work everything off that is due, unless that is being done: the next sweep finds what is left."""
        if self._running.locked():
            return
        async with self._running:
            while await self.step():
                pass

    async def sweep(self) -> None:
        """What is due, what Chroma has to forget, what it lost, and what waits to be made or dropped."""
        await store.fill(self.pool)
        if self.placer is not None:
            await self._upkeep(self.placer)
        await self.start()

    async def _upkeep(self, placer: Placer) -> None:
        if not any(index.kind == "vectors" for index in await store.living(self.pool)):
            wanted = self.models.wanted()
            await store.begin_index(self.pool, wanted.name, wanted.dimensions)
        await placer.look()
        while await placer.forget():
            pass
        await self.pool.execute(QUERIES.refilled)
        await placer.drop_retired()

    async def step(self) -> bool:
        """A batch of every index; whether there was anything."""
        worked = False
        for index in await store.living(self.pool):
            if index.kind == "words":
                worked |= await self._words(index)
            elif self.placer is not None:
                worked |= await self._vectors(index, self.placer)
        return worked

    async def _words(self, index: Index) -> bool:
        claim_id = new_uuid()
        claimed = await store.claim(self.pool, index, claim_id, BATCH, placing=True)
        if not claimed:
            return False
        texts = {one.place: text for one in claimed if (text := _text_of(one))}
        async with self.pool.acquire() as connection, connection.transaction():
            held = await store.lock_claim(connection, claim_id, [one.place for one in claimed])
            await store.put_words(connection, {place: texts[place] for place in texts if place in held})
            await store.finish(connection, claim_id, list(held))
        return True

    async def _vectors(self, index: Index, placer: Placer) -> bool:
        """Read, embed and keep what is new; place what is kept. Whether that went on."""
        claim_id = new_uuid()
        claimed = await store.claim(self.pool, index, claim_id, BATCH, placing=not placer.away)
        if not claimed:
            return await self._switched(index)
        wait = 0.0
        try:
            read = [one for one in claimed if one.stage == "read"]
            await self._keep(index, claim_id, read)
            return await self._place(index, claim_id, claimed, placer) or bool(read)
        except QlaudError as error:
            # Its words name no text. A provider that refuses, or a budget that is used up, may change.
            logger.warning("indexing_failed", model=index.model, error=error.code, messages=len(claimed))
            wait = RETRY_SECONDS
            return False
        finally:
            await asyncio.shield(self.pool.execute(QUERIES.release_claim, claim_id, wait))

    async def _switched(self, index: Index) -> bool:
        """An index that lacks nothing any more takes over."""
        if index.state == "building" and index.filled and await store.switch(self.pool, index.id):
            logger.info("search_index_switched", model=index.model)
        return False

    async def _keep(self, index: Index, claim_id: uuid.UUID, read: list[Claimed]) -> None:
        """Vectors of what was read, in Postgres; what has no text is done."""
        texts: dict[Place, list[Chunk]] = {}
        known = [one.place for one in read if one.has_vectors]
        places = []
        for one in read:
            if sum(map(len, texts.values())) >= CHUNKS:
                break  # the rest is for the next claim: this one must not outlast its time
            places.append(one.place)
            if not one.has_vectors and (text := _text_of(one)):
                texts[one.place] = chunks(text)
        questions = {one.place: _question_of(one) for one in read}
        pieces = await self._embed(index, texts, questions)
        async with self.pool.acquire() as connection, connection.transaction():
            held = await store.lock_claim(connection, claim_id, places)
            kept = [piece for piece in pieces if piece.place in held]
            await store.put_vectors(connection, index.id, kept)
            to_place = [place for place in (*texts, *known) if place in held]
            await connection.execute(QUERIES.to_place, claim_id, *store.columns(to_place))
            done = [place for place in held if place not in texts and place not in known]
            await store.finish(connection, claim_id, done)

    async def _embed(
        self, index: Index, texts: dict[Place, list[Chunk]], questions: dict[Place, str]
    ) -> list[Piece]:
        if not texts:
            return []
        model = self.models.of(index.model, index.dimensions)
        flat = [in_context(chunk, questions[place]) for place, pieces in texts.items() for chunk in pieces]
        vectors = await model.vectors(flat, await self._payer(model))
        found: list[Piece] = []
        for place, pieces in texts.items():
            start = len(found)
            found += store.pieces_of(place, pieces, vectors[start : start + len(pieces)])
        return found

    async def _payer(self, model: VectorModel) -> ApiKey | None:
        """The operator pays for indexing. Raises InvalidKey when the master key is another one by now."""
        if not model.paid or self.master_key is None:
            return None
        key = await lifecycle.verify(self.pool, self.master_key.reveal())
        if not key.is_master:
            raise InvalidKey
        return key

    async def _place(self, index: Index, claim_id: uuid.UUID, claimed: list[Claimed], placer: Placer) -> bool:
        """Put the kept vectors of a claim into Chroma, account by account."""
        if placer.away:
            return False
        by_account: dict[uuid.UUID, list[Place]] = defaultdict(list)
        for one in claimed:
            by_account[one.account_id].append(one.place)
        for account_id, places in by_account.items():
            pieces = await store.vectors_of(self.pool, index.id, places)
            if pieces and not await placer.place(index, account_id, pieces):
                return False
            await store.finish(self.pool, claim_id, places)
        return True


def _text_of(one: Claimed) -> str:
    """What of a message is indexed: nothing of a deleted thread."""
    return searched_text(one.role, one.content, last=one.last) if one.alive else ""


def _question_of(one: Claimed) -> str:
    """What an answer answers."""
    return searched_text("user", one.question, last=False) if one.question else ""
