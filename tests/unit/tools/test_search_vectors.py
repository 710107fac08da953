"""Vectors of searched texts: packaged, remembered, computed in the background, or not to be had."""

from collections.abc import Sequence

import numpy as np
import pytest

from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.embeddings.embedder import DIMENSIONS, Embedder, EmbeddingsUnavailable, Vectors
from qlaud_actors.tools import search_vectors
from qlaud_actors.tools.search_document import of_connector
from qlaud_actors.tools.search_vectors import SearchVectors, key_of, read_packaged


class Counting(Embedder):
    """Gives the length of a text as its vector, and keeps what it was asked for."""

    def __init__(self, *, absent: bool = False) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.absent = absent

    def embed(self, texts: Sequence[str]) -> Vectors:
        """As the real one."""
        if self.absent:
            raise EmbeddingsUnavailable("no model here")
        self.asked += texts
        return np.array([[len(text)] * DIMENSIONS for text in texts], np.float32)


async def test_what_is_missing_is_computed_once_and_in_the_background() -> None:
    """The first look gives nothing, the next one all, in the order asked; nothing is computed twice."""
    model = Counting()
    vectors = SearchVectors(model, {key_of("packaged"): np.ones(DIMENSIONS, np.float32)})
    texts = ["packaged", *("x" * n for n in range(1, 12))]
    assert vectors.of(texts) is None
    await vectors.settled()
    known = vectors.of(texts)
    assert known is not None
    assert known[:, 0].tolist() == [1, *range(1, 12)]
    assert sorted(model.asked) == sorted(texts[1:])
    assert (await vectors.intent("xx")) is not None
    assert sorted(model.asked) == sorted(texts[1:])
    await vectors.close()


async def test_without_a_model_there_are_no_vectors_and_no_errors() -> None:
    """The absence is noticed once; from then on nobody waits for it."""
    vectors = SearchVectors(Counting(absent=True), {})
    assert vectors.of(["text"]) is None
    await vectors.settled()
    assert vectors.of(["text"]) is None
    assert await vectors.intent("text") is None
    await vectors.close()


async def test_the_oldest_use_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory has a bound."""
    monkeypatch.setattr(search_vectors, "MOST", 2)
    model = Counting()
    vectors = SearchVectors(model, {})
    for text in ("a", "b", "a", "c", "a", "b"):
        await vectors.intent(text)
    assert model.asked == ["a", "b", "c", "b"]


def test_the_packaged_vectors_are_those_of_the_catalogue() -> None:
    """Nine of ten texts at least are packaged (else run scripts/build_catalog_vectors.py), and are true."""
    connectors = ConnectorCatalog.load({}).connectors.values()
    texts = [document.meaning for connector in connectors for document in of_connector(connector)]
    packaged = read_packaged()
    known = [text for text in texts if key_of(text) in packaged]
    assert len(known) >= 0.9 * len(texts)
    fresh = Embedder().embed(known[:3])
    kept = np.array([packaged[key_of(text)] for text in known[:3]])
    assert ((fresh * kept).sum(axis=1) > 0.999).all()
