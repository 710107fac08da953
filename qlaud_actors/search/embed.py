"""Texts as vectors, by the offline model or by one of the catalogue (OpenAI's, or another in its dialect).

The offline model costs nothing. A catalogued one is paid like every call: with a hold before, a usage row
behind. Who pays is said with each call: the operator (the master key) for indexing, so that no cap of a key
decides what is found later; the key that asks for its own queries.
"""

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import numpy as np

from qlaud_actors.embeddings.embedder import DIMENSIONS, MODEL, Embedder, EmbeddingsUnavailable, Vectors
from qlaud_actors.errors import ProviderUnavailable
from qlaud_actors.gateway.ask_embeddings import EmbeddingsAsk
from qlaud_actors.gateway.relay import Relay, Whole
from qlaud_actors.keys.model import ApiKey
from qlaud_actors.search.index import SearchUnavailable

BATCH = 64
"""Texts in one request to a provider."""

REMEMBERED = 1_000
"""Vectors of the latest queries that a process keeps: pages and repetitions cost nothing."""


class VectorModel(Protocol):
    """A model that turns texts into vectors of length 1."""

    @property
    def name(self) -> str:
        """Of the model."""

    @property
    def dimensions(self) -> int:
        """Numbers in a vector; 0 leaves it to the model."""

    @property
    def paid(self) -> bool:
        """Whether each call costs."""

    async def vectors(self, texts: Sequence[str], payer: ApiKey | None) -> Vectors:
        """One row for each text. Raises QlaudError."""


@dataclass(frozen=True, slots=True)
class OfflineModel:
    """The model of `embeddings/`, on this machine."""

    embedder: Embedder
    name: str = MODEL
    dimensions: int = DIMENSIONS
    paid: bool = False

    async def vectors(self, texts: Sequence[str], _payer: ApiKey | None) -> Vectors:
        """Nobody pays. Raises SearchUnavailable when the model is not installed."""
        try:
            return await self.embedder.vectors(texts)
        except EmbeddingsUnavailable as error:
            raise SearchUnavailable(f"The embedding model is not available: {error}.") from error


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """An embeddings model of the catalogue, asked like `POST /v1/embeddings` does."""

    relay: Relay
    name: str
    dimensions: int
    paid: bool = True

    async def vectors(self, texts: Sequence[str], payer: ApiKey | None) -> Vectors:
        """The payer's hold is placed before each request. Raises BudgetRefused, ProviderError."""
        if payer is None:
            raise SearchUnavailable("The master key, which pays for indexing, is not known to this process.")
        found: list[Any] = []
        for start in range(0, len(texts), BATCH):
            found += await self._ask(texts[start : start + BATCH], payer)
        vectors = np.asarray(found, np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.where(lengths == 0, 1, lengths), np.float32)

    async def _ask(self, texts: Sequence[str], payer: ApiKey) -> list[Any]:
        body: dict[str, Any] = {"model": self.name, "input": list(texts), "encoding_format": "float"}
        if self.dimensions:
            body["dimensions"] = self.dimensions
        whole = Whole(payer, EmbeddingsAsk.of(body))
        await self.relay.whole(whole)
        with suppress(msgspec.DecodeError, KeyError, TypeError):
            rows = msgspec.json.decode(whole.body)["data"]
            vectors = [row["embedding"] for row in sorted(rows, key=lambda row: row["index"])]
            if len(vectors) == len(texts) and len({len(one) for one in vectors}) == 1:
                return vectors
        raise ProviderUnavailable("The provider of embeddings did not answer with a vector for each text.")


@dataclass(slots=True)
class QueryVectors:
    """Vectors of queries, remembered in this process only; those that cost, for the key that paid."""

    _known: OrderedDict[tuple[str, str, str], Any] = field(default_factory=OrderedDict, repr=False)

    async def of(self, model: VectorModel, query: str, payer: ApiKey) -> Any:
        """The vector of a query. Raises QlaudError."""
        key = (model.name, str(payer.id) if model.paid else "", query)
        if key not in self._known:
            self._known[key] = (await model.vectors([query], payer))[0]
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]


@dataclass(frozen=True, slots=True)
class Models:
    """The models of this process: the one that the settings name, and the offline one beside it."""

    offline: OfflineModel
    relay: Relay
    configured: str | None
    configured_dimensions: int

    def wanted(self) -> VectorModel:
        """The one that an index should be made with."""
        if self.configured is None or self.configured == MODEL:
            return self.offline
        return CatalogueModel(self.relay, self.configured, self.configured_dimensions)

    def of(self, name: str, dimensions: int) -> VectorModel:
        """The one that an index was made with."""
        if name == MODEL:
            return self.offline
        return CatalogueModel(self.relay, name, dimensions)
