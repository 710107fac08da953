"""The vectors of texts that are searched: those of the packaged catalogue from a file, others computed once.

What is missing is computed in the background, off the event loop; a search that comes before goes by words.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np

from qlaud_actors.embeddings.embedder import (
    DIMENSIONS,
    MODEL,
    PIECE,
    Embedder,
    EmbeddingsUnavailable,
    Vectors,
)
from qlaud_actors.log import get_logger

PACKAGED: Final = Path(__file__).with_name("catalog_vectors.npz")
MOST = 20_000
"""Vectors of other texts that a process remembers: 30 MB. The oldest use goes first."""

logger = get_logger(__name__)


class SearchVectors:
    """What one process knows."""

    def __init__(self, embedder: Embedder, packaged: Mapping[bytes, Vectors] | None = None) -> None:
        self._embedder = embedder
        self._packaged = read_packaged() if packaged is None else packaged
        self._known: OrderedDict[bytes, Vectors] = OrderedDict()
        self._wanted: dict[bytes, str] = {}
        self._filling: asyncio.Task[None] | None = None
        self._unavailable = False

    async def intent(self, text: str) -> Vectors | None:
        """The vector of an intent, computed now if need be; None without the model."""
        if (known := self._find(key := key_of(text))) is not None:
            return known
        if self._unavailable:
            return None
        try:
            vectors = await self._embedder.vectors([text])
        except EmbeddingsUnavailable as error:
            self._give_up(error)
            return None
        row: Vectors = vectors[0]
        self._keep(key, row)
        return row

    def of(self, texts: Sequence[str]) -> Vectors | None:
        """A row for each text if all are known; else None, and what is missing will be known soon."""
        if self._unavailable:
            return None
        found = [self._find(key_of(text)) for text in texts]
        missing = {key_of(text): text for text, row in zip(texts, found, strict=True) if row is None}
        if missing:
            self._want(missing)
            return None
        return np.array(found, np.float32) if found else np.zeros((0, DIMENSIONS), np.float32)

    async def settled(self) -> None:
        """Wait until nothing is missing any more."""
        while self._filling and not self._filling.done():
            await asyncio.wait([self._filling])

    async def close(self) -> None:
        """Stop computing."""
        if self._filling:
            self._filling.cancel()
            await asyncio.wait([self._filling])

    def _find(self, key: bytes) -> Vectors | None:
        if (row := self._packaged.get(key)) is not None:
            return row
        if (row := self._known.get(key)) is not None:
            self._known.move_to_end(key)
        return row

    def _keep(self, key: bytes, row: Vectors) -> None:
        self._known[key] = row
        if len(self._known) > MOST:
            self._known.popitem(last=False)

    def _want(self, missing: Mapping[bytes, str]) -> None:
        if self._unavailable or len(missing) > MOST:
            return
        self._wanted.update(missing)
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._fill())

    async def _fill(self) -> None:
        try:
            while self._wanted:
                some = list(self._wanted.items())[:PIECE]
                rows = await self._embedder.vectors([text for _, text in some])
                for (key, _), row in zip(some, rows, strict=True):
                    self._wanted.pop(key, None)
                    self._keep(key, row)
        except EmbeddingsUnavailable as error:
            self._give_up(error)
        except Exception:
            self._wanted.clear()
            logger.exception("search_vectors_failed")

    def _give_up(self, error: EmbeddingsUnavailable) -> None:
        self._unavailable = True
        self._wanted.clear()
        logger.warning("search_by_words_only", reason=str(error))


def key_of(text: str) -> bytes:
    """Names a text and the model in 8 bytes."""
    return blake2b(f"{MODEL}\n{text}".encode(), digest_size=8).digest()


@lru_cache(maxsize=1)
def read_packaged() -> dict[bytes, Vectors]:
    """The packaged vectors by key; they are kept in a quarter of the room, which costs no quality."""
    if not PACKAGED.is_file():
        return {}
    with np.load(PACKAGED, allow_pickle=False) as file:
        rows = file["rows"].astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return dict(zip((bytes(key) for key in file["keys"]), rows, strict=True))


def write_packaged(texts: Sequence[str], embedder: Embedder) -> int:
    """Write the vectors of these texts, each once, in the order of their keys; how many there are."""
    by_key = dict(sorted((key_of(text), text) for text in texts))
    rows = embedder.embed(list(by_key.values()))
    small = np.round(rows * (127 / np.abs(rows).max(axis=1, keepdims=True))).astype(np.int8)
    keys = np.array([np.frombuffer(key, np.uint8) for key in by_key])
    np.savez_compressed(PACKAGED, keys=keys, rows=small)
    return len(by_key)
